"""GET /metrics: what is counted, under which names."""

from __future__ import annotations

import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.models import WINE

DURATION = "flask_http_request_duration_seconds"


@pytest.fixture
def service(folder, models, run, settings):
    """Calls a service that nobody else calls."""
    folder.upload(models.fives_and_sixes.content)
    return run(settings).test_client()


def samples(client):
    """Return every sample: its value by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(client.get("/metrics").text)
        for sample in family.samples
    }


def value(client, name, **labels):
    return samples(client).get((name, *sorted(labels.items())))


def names(client):
    return {name for name, *_ in samples(client)}


def test_counts_predictions_by_endpoint_and_outcome(service):
    service.post("/predict", json={"features": WINE})
    service.post("/predict", json={"features": []})
    service.post("/predict/batch", json={"features_list": [WINE, WINE]})

    assert value(service, "wine_predictions_total", endpoint="predict", outcome="success") == 1
    assert value(service, "wine_predictions_total", endpoint="predict", outcome="invalid") == 1
    assert value(service, "wine_predictions_total", endpoint="predict_batch", outcome="success") == 1
    assert value(service, "wine_prediction_rows_total") == 3


def test_counts_predictions_that_had_no_model(run, settings):
    client = run(settings).test_client()
    client.post("/predict", json={"features": WINE})

    assert value(client, "wine_predictions_total", endpoint="predict", outcome="unavailable") == 1
    assert value(client, "wine_errors_total", code="model_not_loaded") == 1


def test_counts_what_the_model_said(service, models):
    service.post("/predict/batch", json={"features_list": [WINE, WINE, [*WINE[:10], 12]]})

    assert value(service, "wine_predicted_label_total", label="5") == 2
    assert value(service, "wine_predicted_label_total", label="6") == 1
    assert value(service, "wine_confidence_count") == 3
    assert value(service, "wine_confidence_bucket", le="+Inf") == 3
    assert value(service, "wine_model_seconds_count") == 1
    assert value(service, "wine_batch_rows_sum") == 3


def test_counts_errors_by_their_code(service):
    service.get("/nowhere")
    service.post("/predict", data=b"{", content_type="application/json")

    assert value(service, "wine_errors_total", code="not_found") == 1
    assert value(service, "wine_errors_total", code="invalid_json") == 1


def test_counts_requests_by_method_status_and_route(service):
    service.post("/predict", json={"features": WINE})

    assert value(service, "flask_http_request_total", method="POST", status="200") == 1
    assert value(service, f"{DURATION}_count", method="POST", url_rule="/predict", status="200") == 1


def test_a_label_is_never_what_a_caller_makes_up(service):
    service.open("/made/up", method="MADEUP")
    service.get("/made/up/too")
    service.open("/predict", method="INVENTED")

    assert "MADEUP" not in service.get("/metrics").text
    assert "INVENTED" not in service.get("/metrics").text
    assert "made" not in service.get("/metrics").text


def test_counts_reloads_by_outcome(service, folder, models):
    folder.upload(models.sevens_and_eights.content)
    service.post("/model/reload")
    service.post("/model/reload")
    folder.upload(b"broken")
    service.post("/model/reload")
    folder.vanish()
    service.post("/model/reload")

    counted = {key: value for key, value in samples(service).items() if key[0] == "wine_model_reloads_total"}
    outcomes = {dict(labels)["outcome"] for _, *labels in counted}
    assert value(service, "wine_model_reloads_total", outcome="loaded", reason="") == 2  # one of them at the start
    assert value(service, "wine_model_reloads_total", outcome="unchanged", reason="") == 1
    assert outcomes == {"loaded", "unchanged", "refused", "failed"}


def test_shows_the_model_in_use(service, models):
    info = {key: value for key, value in samples(service).items() if key[0] == "wine_model_info"}

    ((key, shown),) = info.items()
    assert shown == 1
    assert dict(key[1:])["version"] == models.fives_and_sixes.plain_version
    assert dict(key[1:])["digest"] == models.fives_and_sixes.digest
    assert dict(key[1:])["engine"]


def test_shows_the_state_of_the_host(service):
    assert value(service, "wine_model_generation") == 1
    assert value(service, "wine_model_stale") == 0
    assert value(service, "wine_workers") == 1
    assert value(service, "wine_workers_converged") == 1
    assert value(service, "wine_store_up") == 1
    assert value(service, "wine_model_loaded_timestamp_seconds") > 1.7e9
    assert value(service, "wine_start_time_seconds") > 1.7e9
    assert value(service, "wine_requests_in_flight") == 1
    assert value(service, "wine_workers_configured") == 1
    assert value(service, "wine_worker_threads") == 4
    assert value(service, "wine_worker_resident_memory_bytes", worker="0") > 10_000_000
    assert value(service, "wine_store_checked_timestamp_seconds") > 1.7e9


def test_says_when_a_model_with_a_card_was_trained(folder, models, run, settings):
    folder.publish("1.0", models.fives_and_sixes)
    folder.promote("1.0")

    assert 0 < value(run(settings).test_client(), "wine_model_created_timestamp_seconds") < time.time()


def test_a_model_without_a_card_does_not_say_when_it_was_trained(service):
    assert value(service, "wine_model_created_timestamp_seconds") is None


def test_asking_what_can_be_asked_is_no_prediction(service):
    service.options("/predict")

    assert not [key for key in samples(service) if key[0] == "wine_predictions_total"]


def test_shows_that_the_store_is_away(service, folder):
    folder.vanish()
    service.post("/model/reload")

    assert value(service, "wine_store_up") == 0


def test_every_metric_of_the_contract_is_there(service, folder):
    service.post("/predict", json={"features": WINE})
    service.post("/predict/batch", json={"features_list": [WINE]})
    service.get("/nowhere")

    assert names(service) >= {
        "flask_http_request_total",
        f"{DURATION}_count",
        "wine_predictions_total",
        "wine_prediction_rows_total",
        "wine_model_seconds_count",
        "wine_batch_rows_count",
        "wine_predicted_label_total",
        "wine_confidence_count",
        "wine_errors_total",
        "wine_requests_in_flight",
        "wine_model_reloads_total",
        "wine_model_rollbacks_total",
        "wine_model_info",
        "wine_model_generation",
        "wine_model_loaded_timestamp_seconds",
        "wine_model_stale",
        "wine_workers",
        "wine_workers_converged",
        "wine_store_up",
        "wine_start_time_seconds",
        "wine_build_info",
    }


def test_no_metric_has_a_label_for_processes(service):
    labels = {label for _, *labels in samples(service) for label, _ in labels}

    assert "pid" not in labels


def test_shows_only_the_metrics_that_were_asked_for(service):
    answer = service.get("/metrics?name[]=wine_workers&name[]=wine_model_info")

    assert answer.status_code == 200
    assert {family.name for family in parse_text(answer.text)} == {"wine_workers", "wine_model_info"}


@pytest.mark.parametrize("name", ["nothing_of_the_kind", "", "%00", "a" * 5000])
def test_asking_for_an_unknown_metric_shows_none(client, name):
    answer = client.get(f"/metrics?name[]={name}")

    assert answer.status_code == 200


def test_speaks_openmetrics_to_whoever_asks(service):
    answer = service.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.content_type.startswith("application/openmetrics-text")
    assert "wine_workers" in {family.name for family in parse_openmetrics(answer.text)}


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html",
        "application/openmetrics-text; version=9.9; q=x",
        ";;;,,,",
        "text/plain;escaping=nonsense",
    ],
)
def test_answers_whatever_is_accepted(client, accept):
    answer = client.get("/metrics", headers={"Accept": accept})

    assert answer.status_code == 200
    assert "wine_workers" in answer.text


def test_a_regressors_answers_are_counted_by_the_nearest_grade(folder, models, run, settings):
    folder.upload(models.regressor.content)
    client = run(settings).test_client()

    client.post("/predict", json={"features": WINE})

    assert value(client, "wine_predicted_label_total", label="5") == 1
