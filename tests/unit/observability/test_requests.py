"""The life of a request: an id, a log line and an end, however it ends."""

from __future__ import annotations

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from wine_api.metrics import Metrics
from wine_api.observability.lines import request_of_thread
from wine_api.observability.requests import ObservedRequest, RequestObserver, valid_request_id
from wine_api.response_times import ResponseTimes


class Lines:
    """Keeps the requests that a line was to be written of."""

    def __init__(self) -> None:
        self.requests: list[ObservedRequest] = []

    def write(self, request) -> None:
        self.requests.append(request)


class Observed:
    """An observed application, and what was seen of it."""

    def __init__(self, application) -> None:
        self.metrics, self.times, self.log = Metrics(), ResponseTimes(), Lines()
        self.observer = RequestObserver(application, self.metrics, self.times, log=self.log)

    def call(self, **environ):
        return run_wsgi_app(self.observer, EnvironBuilder(**environ).get_environ(), buffered=True)

    @property
    def line(self):
        """The only line so far."""
        (request,) = self.log.requests
        return request

    @property
    def in_flight(self):
        return self.metrics.requests_in_flight._value.get()

    def total(self, method, status):
        """How many requests of this kind were counted."""
        labels = {"method": method, "status": str(status)}
        return self.metrics.registry.get_sample_value("flask_http_request_total", labels)

    @property
    def finished(self):
        return sum(self.times.counts().values())


def ok(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]


def fails(environ, start_response):
    raise RuntimeError("no cork")


def test_an_answer_and_its_line_carry_the_same_id():
    watched = Observed(ok)

    _, _, headers = watched.call(headers={"X-Request-ID": "my-request"})

    assert headers.getlist("X-Request-ID") == ["my-request"]
    assert watched.line.request_id == "my-request"


def test_it_is_known_what_was_asked_and_what_came_of_it():
    watched = Observed(ok)

    watched.call(method="POST", path="/model/reload", environ_overrides={"REMOTE_ADDR": "192.0.2.1"})

    line = watched.line
    assert (line.method, line.path, line.status, line.client) == ("POST", "/model/reload", 200, "192.0.2.1")
    assert line.seconds >= 0
    assert line.outcome is None


def test_a_request_is_in_flight_until_its_answer_is_closed():
    watched = Observed(ok)
    body = watched.observer(EnvironBuilder().get_environ(), lambda *_: None)
    under_way = (watched.in_flight, watched.finished, len(watched.log.requests))

    body.close()

    assert under_way == (1, 0, 0)
    assert (watched.in_flight, watched.finished, len(watched.log.requests)) == (0, 1, 1)


def test_a_request_is_counted_before_its_answer_is_sent():
    """Who has the answer, and asks for the metrics at once, finds it counted."""
    counted = []
    watched = Observed(ok)

    watched.observer(EnvironBuilder().get_environ(), lambda *_: counted.append(watched.total("GET", 200))).close()

    assert counted == [1]


def test_a_request_that_fails_ends_too():
    watched = Observed(fails)

    with pytest.raises(RuntimeError, match="no cork"):
        watched.call()

    assert watched.line.status == 500
    assert watched.total("GET", 500) == 1
    assert (watched.in_flight, watched.finished) == (0, 1)
    assert request_of_thread.get() == {}


def test_lines_of_the_application_know_the_request():
    seen = []

    def looks(environ, start_response):
        seen.append(request_of_thread.get())
        return ok(environ, start_response)

    Observed(looks).call(headers={"X-Request-ID": "my-request"})

    assert seen == [{"request_id": "my-request"}]
    assert request_of_thread.get() == {}


def test_a_method_that_nobody_knows_is_logged_but_neither_passed_on_nor_counted():
    seen = []

    def looks(environ, start_response):
        seen.append(environ["REQUEST_METHOD"])
        return ok(environ, start_response)

    watched = Observed(looks)
    watched.call(method="MADEUP")

    assert seen == ["OTHER"]
    assert watched.line.method == "MADEUP"
    assert watched.total("OTHER", 200) == 1


def test_a_path_is_logged_as_people_wrote_it():
    watched = Observed(ok)

    watched.call(path="/wein/grüner-veltliner🍷")

    assert watched.line.path == "/wein/grüner-veltliner🍷"


def test_the_prefix_of_a_proxy_is_part_of_the_path():
    watched = Observed(ok)

    watched.call(path="/predict", environ_overrides={"SCRIPT_NAME": "/ml"})

    assert watched.line.path == "/ml/predict"


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
