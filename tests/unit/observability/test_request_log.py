"""The line of a request says what was predicted where that is wanted, and what was measured only if it is asked for."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import FakeEngine, loaded_model
from wine_api.observability import request_log
from wine_api.observability.request_log import RequestLog
from wine_api.observability.requests import ObservedRequest
from wine_api.serving.predictions import Predicted

WINE = [7.4, 0.7, 0.0, 1.9, 0.076, 11.0, 34.0, 0.9978, 3.51, 0.56, 9.4]


@pytest.fixture
def lines(monkeypatch):
    """What was written so far."""
    written = []

    def write(logger, level, message, fields):
        written.append({"level": level, "message": message, **fields})

    monkeypatch.setattr(request_log.logs, "write", write)
    return written


def predicted(rows: int = 1, **answers) -> Predicted:
    model = replace(loaded_model("1.0", engine=FakeEngine(**answers)), generation=3)
    wines = np.array([WINE] * rows)
    return Predicted(model, wines, model.engine.predict(wines), {})


def request(**fields) -> ObservedRequest:
    return ObservedRequest(
        request_id="my-request",
        method="POST",
        path="/predict",
        client="192.0.2.1",
        started=time.perf_counter(),
        status=200,
        route="/predict",
        outcome="success",
        **fields,
    )


def test_a_prediction_is_in_the_line_with_the_model_that_made_it(lines):
    RequestLog().write(request(predicted=predicted()))

    (line,) = lines
    assert line["level"] == logging.INFO
    assert line["request_id"] == "my-request"
    assert (line["model_version"], line["generation"], line["rows"]) == ("1.0", 3, 1)
    assert (line["outcome"], line["prediction"], line["confidence"]) == ("success", 5, 0.75)
    assert "features" not in line


def test_of_a_batch_the_line_says_how_often_each_label_came(lines):
    RequestLog().write(request(predicted=predicted(rows=40)))

    (line,) = lines
    assert (line["rows"], line["predictions"], line["confidence"]) == (40, {"5": 40}, 0.75)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_without_probabilities_has_no_confidence(lines, rows):
    RequestLog().write(request(predicted=predicted(rows, confidence=None, probabilities=None)))

    assert lines[0]["confidence"] is None


def test_what_was_predicted_can_be_left_out(lines):
    RequestLog(0.0).write(request(predicted=predicted()))

    (line,) = lines
    assert line["model_version"] == "1.0"
    assert "prediction" not in line


def test_what_was_predicted_can_be_sampled(lines, monkeypatch):
    chances = iter([0.05, 0.5, 0.09, 0.1])
    monkeypatch.setattr(request_log.random, "random", lambda: next(chances))

    for _ in range(4):
        RequestLog(0.1).write(request(predicted=predicted()))

    assert ["prediction" in line for line in lines] == [True, False, True, False]


def test_what_was_measured_is_written_only_where_it_is_asked_for(lines):
    RequestLog(features=True).write(request(predicted=predicted(rows=12)))

    assert lines[0]["features"] == [WINE] * 10


def test_a_prediction_that_failed_has_an_outcome_and_no_results(lines):
    failed = request()
    failed.status, failed.outcome = 422, "invalid"

    RequestLog(features=True).write(failed)

    (line,) = lines
    assert (line["outcome"], line["model_version"], line["generation"], line["rows"]) == ("invalid", None, None, None)
    assert not {"prediction", "confidence", "features"} & set(line)


def test_a_request_that_is_no_prediction_says_nothing_of_predictions(lines):
    other = request()
    other.outcome = None

    RequestLog().write(other)

    assert not {"outcome", "model_version", "generation", "rows", "prediction"} & set(lines[0])
