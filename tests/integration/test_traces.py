"""Traces: from both workers to a collector, with the ids that logs and answers have; and nothing where they are off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.problems import read_problem
from tests.models import WINE
from tests.otlp_collector import Collector, collecting
from tests.server import ROOT, Server, free_port, running_server, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


@pytest.fixture(scope="module")
def collector():
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(tmp_path_factory, collector, published_models):
    with running_server(tmp_path_factory.mktemp("traces"), traced(collector.url, published_models)) as server:
        yield server


def traced(url: str, models) -> dict[str, str]:
    return {
        "MODEL_DIR": str(models.path),
        "TRACES": "yes",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def trace_of(server: Server, collector: Collector, answer) -> list:
    """Return the spans of the request that got *answer*, when they have come."""
    (line,) = server.access_lines(answer.request_id)
    return wait_until(
        lambda: (
            collector.of(line["trace_id"])
            if any("http.route" in span.attributes for span in collector.of(line["trace_id"]))
            else None
        ),
        "the spans of a request",
    )


def test_a_prediction_is_a_trace_of_its_parts(server, collector):
    answer = server.post("/predict", {"features": WINE})

    spans = {span.name: span for span in trace_of(server, collector, answer)}

    whole = spans["POST /predict"]
    assert {name for name, span in spans.items() if span.parent_id == whole.span_id} == {
        "validate",
        "predict",
        "respond",
    }
    assert whole.attributes["http.response.status_code"] == 200
    assert whole.attributes["http.route"] == "/predict"
    assert whole.attributes["wine.model.version"] == "1.0"
    assert whole.service == "wine-api"
    assert collector.paths == {"/v1/traces"}


def test_a_request_joins_its_callers_trace_everywhere(server, collector):
    answer = server.post("/predict", {"features": []}, TRACEPARENT | {"X-Request-ID": "joined"})

    whole = next(span for span in trace_of(server, collector, answer) if span.name == "POST /predict")
    (line,) = server.access_lines("joined")
    problem = read_problem(answer.status, answer.headers, answer.body)
    assert whole.parent_id == CALLER
    assert whole.trace_id == line["trace_id"] == problem["trace_id"] == TRACE
    assert whole.attributes["wine.request_id"] == line["request_id"] == problem["request_id"] == "joined"


@pytest.mark.parametrize(
    "sent", ["", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", 'ff-"}{"-\\n', "00-" + "a" * 5000]
)
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(server, sent):
    answer = server.get("/health/live", {"traceparent": sent})

    (line,) = server.access_lines(answer.request_id)
    assert answer.status == 200
    assert len(line["trace_id"]) == 32
    assert line["trace_id"] != "0" * 32


def test_the_spans_of_both_workers_arrive(server, collector):
    first, second = sorted(server.worker_pids())

    answers = [answer_of_one(server, stopped=first), answer_of_one(server, stopped=second)]

    for answer in answers:
        assert trace_of(server, collector, answer)


def answer_of_one(server: Server, *, stopped: int):
    """Ask while the worker with the pid *stopped* cannot answer."""
    os.kill(stopped, signal.SIGSTOP)
    try:
        return server.get("/health/live")
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_load_of_a_model_is_a_trace(collector, server):
    loads = wait_until(
        lambda: [span for span in collector.spans if span.name == "model load"], "the spans of the first load"
    )

    assert {span.attributes["version"] for span in loads} == {"1.0"}


def test_spans_that_wait_are_sent_when_the_service_ends(tmp_path, published_models):
    with (
        collecting() as collector,
        running_server(
            tmp_path, traced(collector.url, published_models) | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
        ) as server,
    ):
        server.get("/health/live", TRACEPARENT)

        assert server.stop() == 0

        assert [span.name for span in collector.of(TRACE)] == ["GET /health/live"]


def test_a_collector_that_is_away_disturbs_neither_answers_nor_the_end(tmp_path, published_models):
    nobody = f"http://127.0.0.1:{free_port()}"
    with running_server(tmp_path, traced(nobody, published_models)) as server:
        answer = server.post("/predict", {"features": WINE})

        assert answer.status == 200
        assert server.stop() == 0
        assert server.access_lines(answer.request_id)


def test_without_traces_nothing_has_a_trace_id(tmp_path, published_models):
    with running_server(tmp_path, {"MODEL_DIR": str(published_models.path)}) as server:
        answer = server.post("/predict", {"features": []}, TRACEPARENT)

        assert "trace_id" not in answer.json
        assert "trace_id" not in server.access_lines(answer.request_id)[0]


def test_without_traces_opentelemetry_is_not_even_imported():
    code = "import sys, wsgi, wine_api.worker; print(sorted(name for name in sys.modules if 'opentelemetry' in name))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"


def test_traces_without_the_extra_stop_the_start_in_one_line(tmp_path):
    code = (
        "from wine_api import worker; from wine_api.observability import traces;"
        "traces.find_spec = lambda name: None; worker.read_settings()"
    )
    settings = {"TRACES": "yes", "STATE_DIR": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, text=True)

    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert "TRACES needs the extra otel" in json.loads(line)["reason"]
