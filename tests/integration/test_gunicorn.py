"""Real Gunicorn, two workers: what clients send that no test client would, and what is logged and counted of it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.integration.problems import read_problem
from tests.models import WINE
from tests.server import Caller, Server, read_answer, running_server, wait_until

MAX_BODY_BYTES = 100_000
BODY = json.dumps({"features": WINE}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Type: application/json\r\n"
GET = b"GET /health/live HTTP/1.1\r\nHost: wine\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory, published_models):
    """Gunicorn with model 1.0, for all tests of this file."""
    settings = {"MODEL_DIR": str(published_models.path), "MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    with running_server(tmp_path_factory.mktemp("gunicorn"), settings) as server:
        yield server


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def problem_of(answer):
    return read_problem(answer.status, answer.headers, answer.body)


# Bodies


def test_a_body_in_chunks_is_answered(server: Server):
    answer = server.send_raw(CHUNKED + chunk(BODY[:10]) + chunk(BODY[10:]) + chunk(b""))

    assert answer.status == 200
    assert answer.json["prediction"] == 5


def test_a_body_that_comes_slowly_is_answered(server: Server):
    with server.connected() as connection:
        connection.sendall(HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:10])
        wait_until(lambda: server.get("/health/live").status == 200, "another request, meanwhile")
        connection.sendall(BODY[10:])
        answer = read_answer(connection)

    assert answer.status == 200


@pytest.mark.parametrize("path", [b"/predict", b"/predict/batch", b"/model/reload"])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server, path):
    with server.connected() as connection:
        connection.sendall(HEAD.replace(b"/predict", path) + b"Content-Length: 10000000000\r\n\r\n")
        answer = read_answer(connection)

    assert answer.status == 413
    assert problem_of(answer)["code"] == "body_too_large"


def test_nobody_waits_for_a_body_that_was_refused(server: Server):
    with server.connected() as connection:
        connection.sendall(HEAD + b"Content-Length: 10000000000\r\n\r\n")
        read_answer(connection)
        rest = connection.recv(1)

    assert rest == b""


@pytest.mark.parametrize("body", [b"", BODY], ids=["spaces", "a wine and spaces"])
def test_a_body_over_the_limit_is_refused_in_chunks_too(server: Server, body):
    answer = server.send_raw(CHUNKED + chunk(body.ljust(MAX_BODY_BYTES + 1)) + chunk(b""))

    assert answer.status == 413
    assert problem_of(answer)["code"] == "body_too_large"


@pytest.mark.parametrize(
    "body",
    [BODY, BODY[:20], b""],
    ids=["whole JSON", "JSON cut short", "nothing"],
)
def test_a_body_shorter_than_announced_is_malformed(server: Server, body):
    answer = server.send_raw(HEAD + b"Content-Length: 1000\r\n\r\n" + body, hang_up=True)

    assert answer.status == 400
    assert problem_of(answer)["code"] == "malformed_body"


@pytest.mark.parametrize(
    "chunks",
    [b"ZZZ\r\nabc\r\n", b"5\r\nab", chunk(BODY), b"-1\r\n\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b""],
    ids=["no number", "cut within a chunk", "no last chunk", "negative size", "more than announced", "nothing at all"],
)
def test_broken_chunks_are_malformed(server: Server, chunks):
    answer = server.send_raw(CHUNKED + chunks, hang_up=True)

    assert answer.status == 400
    assert problem_of(answer)["code"] in ("malformed_body", "malformed_request")


# Requests that are none


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /health/live\r\n\r\n", 400),
        (b"GET /health/live HTTP/9.9\r\nHost: wine\r\n\r\n", 400),
        (b"get /health/live HTTP/1.1\r\nHost: wine\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: wine\r\n\r\n", 400),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b"bad name: x\r\n\r\n", 400),
        (GET + b"X-Null: a\x00b\r\n\r\n", 400),
        (HEAD + b"Content-Length: abc\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: wine\r\n\r\n", 414),
        (GET + b"".join(b"X-%d: a\r\n" % number for number in range(200)) + b"\r\n", 431),
        (GET + b"X-Long: " + b"a" * 10_000 + b"\r\n\r\n", 431),
        (HEAD + b"Expect: the unexpected\r\nContent-Length: 2\r\n\r\n{}", 417),
    ],
    ids=[
        "TLS",
        "a word",
        "only a method",
        "HTTP/0.9",
        "HTTP/9.9",
        "lower-case method",
        "bytes in the path",
        "header without colon",
        "space in a header's name",
        "NUL in a header",
        "length in letters",
        "negative length",
        "two lengths",
        "length and chunks",
        "8 KB path",
        "200 headers",
        "10 KB header",
        "unknown expectation",
    ],
)
def test_what_is_not_http_is_a_problem_document_with_one_access_line(server: Server, request_bytes, status):
    answer = server.send_raw(request_bytes)

    assert answer.status == status
    assert problem_of(answer)["code"]
    (line,) = server.access_lines(answer.request_id)
    assert line["status"] == status


def test_errors_that_gunicorn_finds_are_counted_by_code(server: Server):
    before = server.metric('wine_errors_total{code="malformed_request"}')

    server.send_raw(b"hello\r\n\r\n")

    assert server.metric('wine_errors_total{code="malformed_request"}') == before + 1


@pytest.mark.parametrize("header", [b"SCRIPT_NAME: /elsewhere", b"PATH_INFO: /model", b"REMOTE_USER: admin"])
def test_headers_named_like_variables_of_the_server_change_nothing(server: Server, header):
    answer = server.send_raw(GET + header + b"\r\n\r\n")

    assert answer.status in (200, 400)
    assert server.access_lines(answer.request_id)[0]["path"] in ("/health/live", "-")


# Log lines


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"X-Request-ID: my-own.id/1\r\n",
        b"X-Request-ID: \r\n",
        b"X-Request-ID: " + b"x" * 5000 + b"\r\n",
        b"X-Request-ID: one\r\nX-Request-ID: two\r\n",
        b'X-Request-ID: "}\\n{"level": "CRITICAL"\r\n',
        b"X-Request-ID: a b\tc\r\n",
        b"X-Request-ID: \xff\xfe\r\n",
        b"X-Request-ID: \xc3\xa9\r\n",
        b"X_Request_ID: underscored\r\n",
        b"X-Request-ID: a%0d%0aSet-Cookie: b\r\n",
        b"X-Forwarded-For: \xff\xfe\r\n",
        b"User-Agent: \x1b[31mred\r\n",
    ],
    ids=[
        "none",
        "valid",
        "empty",
        "very long",
        "doubled",
        "forged JSON",
        "white space",
        "invalid UTF-8",
        "not ASCII",
        "with underscores",
        "injected header",
        "other header in invalid UTF-8",
        "control characters",
    ],
)
def test_each_request_has_one_access_line_with_its_id(server: Server, header):
    answer = server.send_raw(GET + header + b"\r\n")

    assert answer.status in (200, 400)
    assert answer.headers.get_all("Set-Cookie") is None
    (request_id,) = answer.headers.get_all("X-Request-ID")
    (line,) = server.access_lines(request_id)
    assert line["status"] == answer.status


def test_a_valid_request_id_goes_into_the_answer_and_the_log(server: Server):
    answer = server.get("/health/live", {"X-Request-ID": "Root=1-67891233-abcdef"})

    assert answer.request_id == "Root=1-67891233-abcdef"
    assert len(server.access_lines("Root=1-67891233-abcdef")) == 1


def test_an_access_line_says_who_asked_what_and_what_came_of_it(server: Server):
    answer = server.post("/predict", {"features": WINE})

    (line,) = server.access_lines(answer.request_id)
    assert line["level"] == "INFO"
    assert line["message"] == "request"
    assert line["method"] == "POST"
    assert line["route"] == line["path"] == "/predict"
    assert line["status"] == 200
    assert 0 < line["duration_ms"] < 60_000
    assert line["client"] == "127.0.0.1"
    assert line["outcome"] == "success"
    assert line["model_version"] == "1.0"
    assert line["rows"] == 1
    assert line["timestamp"].endswith("Z")


def test_the_access_line_names_the_client_behind_a_trusted_proxy(server: Server):
    answer = server.get("/health/live", {"X-Forwarded-For": "198.51.100.7"})

    assert server.access_lines(answer.request_id)[0]["client"] == "198.51.100.7"


@pytest.mark.parametrize(
    "path",
    [
        b"/%ff%fe",
        b"/%00%0a%0d%1b",
        b"/" + b"%01" * 1300,
        b"/" + b"%f0%9f%8d%b7" * 300,
        b"/%22%7d%5c",
        b"//",
        b"/a?b=%0a",
    ],
    ids=["invalid UTF-8", "control characters", "many of them", "many emoji", "quotes", "slashes", "query"],
)
def test_a_strange_path_still_has_a_whole_access_line(server: Server, path):
    answer = server.send_raw(b"GET " + path + b" HTTP/1.1\r\nHost: wine\r\n\r\n")

    assert answer.status in (200, 404)
    (line,) = server.access_lines(answer.request_id)
    assert line["status"] == answer.status
    assert line["method"] == "GET"
    assert line["path"].startswith("/")


def test_a_client_that_leaves_at_once_does_no_harm(server: Server):
    with server.connected() as connection:
        connection.sendall(HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)

    assert server.post("/predict", {"features": WINE}).status == 200


# Counting


def test_counters_are_exact_over_both_workers(server: Server):
    first, second = sorted(server.worker_pids())
    before = server.metric('wine_predictions_total{endpoint="predict",outcome="success"}')
    rows_before = server.metric("wine_prediction_rows_total")

    only_through(server, stopped=first, requests=5)
    only_through(server, stopped=second, requests=7)

    assert server.metric('wine_predictions_total{endpoint="predict",outcome="success"}') == before + 12
    assert server.metric("wine_prediction_rows_total") == rows_before + 12


def test_only_requests_under_way_are_in_flight(server: Server):
    server.post("/predict", {"features": WINE})

    # The scrape itself is one. Those before it end a moment after their answers have come.
    wait_until(lambda: server.metric("wine_requests_in_flight") == 1, "all other requests to end")


def only_through(server: Caller, *, stopped: int, requests: int) -> None:
    """Send *requests* while the worker with the pid *stopped* cannot take any."""
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(requests):
            assert server.post("/predict", {"features": WINE}).status == 200
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_health_and_model_show_both_workers(server: Server):
    workers = server.workers()

    assert [worker["slot"] for worker in workers] == [0, 1]
    assert {worker["pid"] for worker in workers} == server.worker_pids()
    assert all(worker["converged"] for worker in workers)
    assert server.get("/health").json["workers"] == {"alive": 2, "on_target_version": 2}
    assert server.metric("wine_workers") == 2
    assert server.metric("wine_workers_converged") == 2


def test_response_times_of_both_workers_are_put_together(server: Server):
    before = server.get("/health").json["response_times"]["count"]
    first, second = sorted(server.worker_pids())

    only_through(server, stopped=first, requests=2)
    only_through(server, stopped=second, requests=2)

    # Each worker tells the others about once a second.
    wait_until(lambda: server.get("/health").json["response_times"]["count"] >= before + 4, "the count to grow")
