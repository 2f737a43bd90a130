"""Errors: one shape for all, with an id that leads to the log, and nothing that helps an attacker."""

from __future__ import annotations

import logging

import pytest

from tests.integration.problems import problem_of
from tests.models import WINE
from wine_api.security.access import PROBE
from wine_api.security.guard import guard_of


@pytest.fixture
def broken(app):
    """Calls a service with a view that fails."""

    @app.get("/fails")
    def fails():
        raise RuntimeError("the password is s3cret")

    guard_of(app).open({"fails": PROBE})
    return app.test_client()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/nowhere", 404, "not_found"),
        ("GET", "/predict/", 404, "not_found"),
        ("GET", "/health/nothing", 404, "not_found"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "not_found"),
        ("GET", "/%00%0d%0a", 404, "not_found"),
        ("GET", "/%ff%fe", 404, "not_found"),
        ("GET", "/" + "a" * 8000, 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/model", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("TRACE", "/predict", 405, "method_not_allowed"),
        ("MADEUP", "/predict", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_a_problem_document(client, method, path, status, code):
    answer = client.open(path, method=method)

    assert answer.status_code == status
    assert problem_of(answer)["code"] == code


def test_a_wrong_method_is_told_the_right_ones(client):
    answer = client.get("/predict")

    assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_an_answer_to_head_has_no_body(client):
    answer = client.head("/nowhere")

    assert answer.status_code == 404
    assert answer.data == b""


def test_an_unexpected_error_says_nothing_to_the_caller(broken):
    answer = broken.get("/fails")

    assert answer.status_code == 500
    assert problem_of(answer)["code"] == "internal_error"
    assert "s3cret" not in answer.text
    assert "RuntimeError" not in answer.text


def test_an_unexpected_error_says_everything_to_the_log(broken, caplog):
    with caplog.at_level(logging.ERROR):
        broken.get("/fails")

    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "the password is s3cret" in str(record.exc_info[1])


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/predict", "/metrics"])
def test_every_answer_carries_a_request_id(client, path):
    first, second = client.get(path), client.get(path)

    assert first.headers["X-Request-ID"]
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "request_id",
    ["a", "9f1c2b", "6f1d9a3e-5b0c-4c1b-9d9d-0b7c7f1f2a11", "Root=1-67891233-abcdef012345678912345678", "x" * 128],
)
@pytest.mark.parametrize("path", ["/health/live", "/nowhere"])
def test_a_valid_request_id_is_kept(client, path, request_id):
    answer = client.get(path, headers={"X-Request-ID": request_id})

    assert answer.headers.getlist("X-Request-ID") == [request_id]


@pytest.mark.parametrize(
    "request_id",
    ["", " ", "x" * 129, "a b", "a,b", '"quoted"', "{}", "<script>", "é", "-leading", "a\tb", "%0a", "a;b", "a'b"],
)
def test_an_invalid_request_id_is_replaced(client, request_id):
    answer = client.get("/health/live", headers={"X-Request-ID": request_id})

    (kept,) = answer.headers.getlist("X-Request-ID")
    assert kept != request_id
    assert kept.isalnum()


def test_the_problem_names_the_callers_request_id(client):
    answer = client.get("/nowhere", headers={"X-Request-ID": "my-request"})

    assert problem_of(answer)["request_id"] == "my-request"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/health"])
def test_every_answer_tells_browsers_to_be_careful(client, path):
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_an_answer_says_nothing_of_the_software(client):
    headers = client.post("/predict", json={"features": WINE}).headers

    assert "Werkzeug" not in str(headers)
    assert "Python" not in str(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "<script>"},
        {"Host": ""},
        {"X-Forwarded-Host": '"><script>'},
        {"X-Forwarded-For": "' OR 1=1 --"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Prefix": "/../../"},
        {"X-Forwarded-Prefix": "/a\tb"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"Accept": "text/html"},
        {"Content-Length": "abc"},
        {"Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"Cookie": "a" * 4000},
        {"Authorization": "Basic !!!"},
    ],
    ids=lambda headers: " ".join([*headers, *headers.values()])[:40],
)
def test_strange_headers_are_no_reason_to_fail(client, headers):
    answer = client.get("/", headers=headers)

    assert answer.status_code == 200 or problem_of(answer)["status"] == 400
    assert "<script" not in answer.text
    assert "evil" not in answer.text
    assert ".." not in answer.text
