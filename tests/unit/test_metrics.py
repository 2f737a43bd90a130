"""Metrics: their names are a contract, and each application counts for itself."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from wine_api.metrics import HostGauges, Metrics

HOST = HostGauges(
    models=[("1.0", "abc", "sklearn")],
    generation=3,
    loaded_at=1_700_000_000.0,
    created_at=1_600_000_000.0,
    stale=True,
    workers=2,
    workers_converged=1,
    workers_configured=3,
    worker_threads=4,
    worker_memory={0: 100_000_000, 1: 200_000_000},
    store_up=False,
    store_checked_at=1_800_000_000.0,
)


@pytest.fixture
def metrics():
    return Metrics()


def samples(metrics, names=()):
    text, _ = metrics.render("", names)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


def test_counts_labels_rows_and_confidence(metrics):
    metrics.count_answers([5, 5, 6], np.array([0.9, 0.45, 1.0]), 0.002)

    found = samples(metrics)
    assert found["wine_predicted_label_total", ("label", "5")] == 2
    assert found["wine_predicted_label_total", ("label", "6")] == 1
    assert found["wine_prediction_rows_total",] == 3
    assert found["wine_model_seconds_count",] == 1
    assert found["wine_confidence_count",] == 3
    assert found["wine_confidence_sum",] == pytest.approx(2.35)


@pytest.mark.parametrize(
    "confidences",
    [[0.5], [0.1, 0.1], [0.0, 0.1, 0.10001, 0.95, 1.0], [0.3] * 1000],
    ids=["one", "on a bound", "spread", "many"],
)
def test_a_batch_of_confidences_is_counted_as_one_by_one(confidences):
    at_once, one_by_one = Metrics(), Metrics()
    at_once.count_answers([5] * len(confidences), np.array(confidences), 0.001)
    for confidence in confidences:
        one_by_one.confidence.observe(confidence)

    counted = {key: value for key, value in samples(at_once).items() if key[0] == "wine_confidence_bucket"}
    expected = {key: value for key, value in samples(one_by_one).items() if key[0] == "wine_confidence_bucket"}
    assert counted == expected


def test_a_model_without_probabilities_has_no_confidence_to_count(metrics):
    metrics.count_answers(["good"], None, 0.001)

    assert samples(metrics)["wine_confidence_count",] == 0
    assert samples(metrics)["wine_predicted_label_total", ("label", "good")] == 1


def test_floats_are_counted_by_their_nearest_grade(metrics):
    metrics.count_answers([5.4, 5.6, 5.61], None, 0.001)

    assert samples(metrics)["wine_predicted_label_total", ("label", "5")] == 1
    assert samples(metrics)["wine_predicted_label_total", ("label", "6")] == 2


def test_shows_the_host_as_it_is_at_the_scrape(metrics):
    metrics.ask_host(lambda: HOST)

    found = samples(metrics)
    assert found["wine_model_info", ("digest", "abc"), ("engine", "sklearn"), ("version", "1.0")] == 1
    assert found["wine_model_generation",] == 3
    assert found["wine_model_loaded_timestamp_seconds",] == 1_700_000_000
    assert found["wine_model_stale",] == 1
    assert found["wine_workers",] == 2
    assert found["wine_workers_converged",] == 1
    assert found["wine_store_up",] == 0
    assert found["wine_model_created_timestamp_seconds",] == 1_600_000_000
    assert found["wine_store_checked_timestamp_seconds",] == 1_800_000_000
    assert found["wine_workers_configured",] == 3
    assert found["wine_worker_threads",] == 4
    assert found["wine_worker_resident_memory_bytes", ("worker", "1")] == 200_000_000


def test_leaves_out_what_is_not_known_yet(metrics):
    metrics.ask_host(lambda: HostGauges(workers=1))

    names = {name for name, *_ in samples(metrics)}
    assert "wine_store_up" not in names
    assert "wine_model_loaded_timestamp_seconds" not in names
    assert "wine_model_info" not in names
    assert "wine_worker_resident_memory_bytes" not in names


@pytest.mark.parametrize("name", ["wine_errors", "wine_errors_total"], ids=["metric", "sample"])
def test_shows_only_the_names_asked_for(metrics, name):
    metrics.errors.labels("not_found").inc()

    assert {name for name, *_ in samples(metrics, [name])} <= {"wine_errors_total", "wine_errors_created"}
    assert samples(metrics, [name])["wine_errors_total", ("code", "not_found")] == 1


def test_two_applications_in_one_process_do_not_share_counts(metrics):
    other = Metrics()

    metrics.errors.labels("not_found").inc()

    assert ("wine_errors_total", ("code", "not_found")) not in samples(other)


def test_counters_outlive_the_worker_that_counted(tmp_path):
    """A new worker goes on with the slot of the dead one; its gauges are gone with it."""
    first = count_in_a_process(tmp_path, slot=0, errors=2)
    second = count_in_a_process(tmp_path, slot=1, errors=3)
    third = count_in_a_process(tmp_path, slot=0, errors=4)

    assert (first["errors"], second["errors"], third["errors"]) == (2, 5, 9)
    assert (first["in_flight"], second["in_flight"], third["in_flight"]) == (1, 2, 2)
    assert len([*tmp_path.glob("*_0.db")]) == len([*tmp_path.glob("*_1.db")])


def test_the_file_of_a_worker_that_starts_just_now_is_no_reason_to_fail(tmp_path):
    (tmp_path / "counter_7.db").touch()

    assert count_in_a_process(tmp_path, slot=0, errors=2)["errors"] == 2


def count_in_a_process(folder, *, slot, errors):
    """Count as a worker that dies with a request in flight; return the sums that it saw."""
    code = f"""
import json
from pathlib import Path
from wine_api import metrics
metrics.count_in_files(Path({str(folder)!r}))
metrics.use_slot({slot})
own = metrics.Metrics()
own.errors.labels("x").inc({errors})
own.requests_in_flight.inc()
text = own.render("")[0].decode()
value = lambda name: next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))
print(json.dumps({{"errors": value("wine_errors_total"), "in_flight": value("wine_requests_in_flight")}}))
"""
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
