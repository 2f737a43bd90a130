"""The life of a request: an id, a log line and an end, however it ends."""

from __future__ import annotations

import logging

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from wine_api.metrics import Metrics
from wine_api.observability.logs import request_id_of_thread
from wine_api.observability.requests import RequestObserver, observed, valid_request_id
from wine_api.response_times import ResponseTimes


class Observed:
    """An observed application, and what was seen of it."""

    def __init__(self, application) -> None:
        self.metrics, self.times = Metrics(), ResponseTimes()
        self.observer = RequestObserver(application, self.metrics, self.times)

    def call(self, **environ):
        return run_wsgi_app(self.observer, EnvironBuilder(**environ).get_environ(), buffered=True)

    @property
    def in_flight(self):
        return self.metrics.requests_in_flight._value.get()

    @property
    def finished(self):
        return sum(self.times.counts().values())


def ok(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]


def fails(environ, start_response):
    raise RuntimeError("no cork")


@pytest.fixture
def lines(caplog):
    """The access lines that the test has made so far."""
    caplog.set_level(logging.INFO)
    return lambda: [record for record in caplog.records if record.name == "wine_api.access"]


def test_an_answer_and_its_line_carry_the_same_id(lines):
    _, _, headers = Observed(ok).call(headers={"X-Request-ID": "my-request"})

    (line,) = lines()
    assert headers.getlist("X-Request-ID") == ["my-request"]
    assert line.request_id == "my-request"


def test_the_line_says_what_was_asked_and_what_came_of_it(lines):
    Observed(ok).call(method="POST", path="/predict", environ_overrides={"REMOTE_ADDR": "192.0.2.1"})

    (line,) = lines()
    assert (line.method, line.path, line.status, line.client) == ("POST", "/predict", 200, "192.0.2.1")
    assert line.duration_ms >= 0
    assert not hasattr(line, "outcome")


def test_what_is_found_out_on_the_way_is_in_the_line(lines):
    def predicts(environ, start_response):
        request = observed(environ)
        request.route, request.outcome, request.model_version, request.rows = "/predict", "success", "1.0", 7
        return ok(environ, start_response)

    Observed(predicts).call()

    (line,) = lines()
    assert (line.route, line.outcome, line.model_version, line.rows) == ("/predict", "success", "1.0", 7)


def test_a_request_is_in_flight_until_its_answer_is_closed(lines):
    watched = Observed(ok)
    body = watched.observer(EnvironBuilder().get_environ(), lambda *_: None)
    under_way = (watched.in_flight, watched.finished, len(lines()))

    body.close()

    assert under_way == (1, 0, 0)
    assert (watched.in_flight, watched.finished, len(lines())) == (0, 1, 1)


def test_a_request_that_fails_ends_too(lines):
    watched = Observed(fails)

    with pytest.raises(RuntimeError, match="no cork"):
        watched.call()

    (line,) = lines()
    assert line.status == 500
    assert (watched.in_flight, watched.finished) == (0, 1)
    assert request_id_of_thread.get() is None


def test_lines_of_the_application_know_the_request(lines):
    seen = []

    def looks(environ, start_response):
        seen.append(request_id_of_thread.get())
        return ok(environ, start_response)

    Observed(looks).call(headers={"X-Request-ID": "my-request"})

    assert seen == ["my-request"]
    assert request_id_of_thread.get() is None


def test_a_method_that_nobody_knows_is_logged_but_not_passed_on(lines):
    seen = []

    def looks(environ, start_response):
        seen.append(environ["REQUEST_METHOD"])
        return ok(environ, start_response)

    Observed(looks).call(method="MADEUP")

    (line,) = lines()
    assert seen == ["OTHER"]
    assert line.method == "MADEUP"


def test_a_path_is_logged_as_people_wrote_it(lines):
    Observed(ok).call(path="/wein/grüner-veltliner🍷")

    assert lines()[0].path == "/wein/grüner-veltliner🍷"


def test_the_prefix_of_a_proxy_is_part_of_the_path(lines):
    Observed(ok).call(path="/predict", environ_overrides={"SCRIPT_NAME": "/ml"})

    assert lines()[0].path == "/ml/predict"


@pytest.mark.parametrize("offered", ["a", "A.b_c-d:e/f+g=h@i", "x" * 128, "0"])
def test_a_valid_id_is_kept(offered):
    assert valid_request_id(offered) == offered


@pytest.mark.parametrize(
    "offered",
    [
        None,
        "",
        " ",
        "x" * 129,
        "a b",
        "a\nb",
        "a\r\nSet-Cookie: b",
        "a,b",
        '"',
        "é",
        "\ud800",
        "-a",
        ".a",
        "a\x00",
        "a\n",
    ],
)
def test_any_other_is_replaced_by_one_that_nobody_has(offered):
    first, second = valid_request_id(offered), valid_request_id(offered)

    assert first != second
    assert valid_request_id(first) == first
