"""More than a worker can answer: refused at once, while health is answered and nothing that was taken is lost."""

from __future__ import annotations

import itertools
import json
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.integration.problems import problem_of as problem_in
from tests.integration.problems import read_problem
from tests.models import WINE
from tests.server import Answer, Server, read_answer, running_server, wait_until
from wine_api.security import overload

BODY = json.dumps({"features": WINE}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)


WHOLE = HEAD + b"\r\n" + BODY


@pytest.fixture(scope="module")
def server(tmp_path_factory, published_models):
    """One worker that answers one request at a time, and lets one more wait."""
    settings = {
        "MODEL_DIR": str(published_models.path),
        "WEB_CONCURRENCY": "1",
        "WEB_THREADS": "1",
        "MAX_IN_FLIGHT": "2",
    }
    with running_server(tmp_path_factory.mktemp("overload"), settings) as server:
        yield server


@contextmanager
def filled(server: Server):
    """Keep the worker busy with one request and have another wait; yields both, which miss the end of their bodies."""
    with ExitStack() as connections:
        taken = []
        while len(taken) < 2:
            connection = connections.enter_context(server.connected())
            connection.sendall(HEAD + b"\r\n" + BODY[:-1])
            # The first may be answered in the round of events in which the connection is seen, the second is not.
            assert [server.get("/health/live").status for _ in range(2)] == [200, 200]
            # The request of the test before may be under way for a moment after its answer; then this one is refused.
            if not select.select([connection], [], [], 0)[0]:
                taken.append(connection)
        yield taken
        finish(taken)


def finish(connections):
    """Complete the requests and return the answers to them."""
    for connection in connections:
        connection.sendall(BODY[-1:])
    answers = [read_answer(connection) for connection in connections]
    connections.clear()
    return answers


def refused(server: Server, content: bytes):
    answer = server.send_raw(content)
    assert answer.status == 503
    problem = read_problem(answer.status, answer.headers, answer.body)
    assert problem["code"] == "overloaded"
    return answer


def test_one_more_is_refused_with_a_problem_document_and_told_when_to_come_back(server: Server):
    with filled(server):
        answer = refused(server, HEAD + b"\r\n" + BODY)

    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Connection"] == "close"


def test_nothing_that_was_taken_is_lost(server: Server):
    with filled(server) as taken:
        refused(server, HEAD + b"\r\n" + BODY)
        answers = finish(taken)

    assert [answer.status for answer in answers] == [200, 200]
    assert server.post("/predict", {"features": WINE}).status == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics", "/metrics?name[]=wine"])
def test_health_and_metrics_are_answered_all_the_same(server: Server, path):
    with filled(server):
        assert [server.get(path).status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize(
    "content",
    [
        b"GET /model HTTP/1.1\r\nHost: wine\r\n\r\n",
        b"GET /healthy HTTP/1.1\r\nHost: wine\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: wine\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: wine\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        HEAD.replace(b"Length: ", b"Length: 99") + b"\r\n" + BODY,
        b"POST /pre",
        b"\x16\x03\x01",
    ],
    ids=["other route", "like health", "other method", "chunks", "half a body", "half a line", "not HTTP"],
)
def test_whatever_else_comes_is_refused(server: Server, content):
    with filled(server):
        refused(server, content)


def test_a_large_body_is_refused_and_its_sender_gets_to_read_it(server: Server):
    with filled(server), server.connected() as connection:
        connection.sendall(HEAD.replace(b"Length: ", b"Length: 20000") + b"\r\n" + b" " * 1_000_000)
        answer = read_answer(connection)

    assert answer.status == 503


def test_who_is_refused_on_a_kept_connection_has_to_open_another_and_may_find_room(server: Server):
    with server.connected() as connection, filled(server):
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: wine\r\n\r\n")
        assert read_answer(connection).headers["Connection"] == "keep-alive"
        connection.sendall(WHOLE)
        answer = read_answer(connection)

        assert (answer.status, answer.headers["Connection"], connection.recv(1)) == (503, "close", b"")


def test_who_leaves_while_waiting_takes_nobodys_place(server: Server):
    with filled(server):
        for _ in range(20):
            with server.connected() as connection:
                connection.sendall(WHOLE)

    assert server.post("/predict", {"features": WINE}).status == 200


def test_pages_of_allowed_origins_can_read_that_they_are_refused(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "1", "WEB_THREADS": "1"}
    origins = {"MAX_IN_FLIGHT": "2", "CORS_ORIGINS": "https://shop.example"}
    with running_server(tmp_path, settings | origins) as server, filled(server):
        allowed = refused(server, HEAD + b"Origin: https://shop.example\r\n\r\n" + BODY)
        other = refused(server, HEAD + b"Origin: https://shop.example.evil.example\r\n\r\n" + BODY)

    assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Access-Control-Allow-Origin" not in other.headers
    assert allowed.headers["Vary"] == other.headers["Vary"] == "Origin"


def test_a_crowd_is_refused_to_the_last_and_those_before_it_are_answered(server: Server):
    with ExitStack() as connections, filled(server) as taken:
        crowd = [connections.enter_context(server.connected()) for _ in range(200)]
        for connection in crowd:
            connection.sendall(WHOLE)
        refusals = [read_answer(connection) for connection in crowd]
        answers = finish(taken)

    assert {answer.status for answer in refusals} == {503}
    assert len({answer.request_id for answer in refusals}) == 200
    assert [answer.status for answer in answers] == [200, 200]


def test_bodies_that_do_not_come_keep_nobody_else_from_being_answered_in_an_overload(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "1", "WEB_THREADS": "4"}
    with ExitStack() as connections, running_server(tmp_path, settings) as server:
        slow = [connections.enter_context(server.connected()) for _ in range(3)]
        for connection in slow:
            connection.sendall(HEAD + b"\r\n" + BODY[:-1])
        # The request for the metrics is the fourth.
        wait_until(lambda: server.metric("wine_requests_in_flight") == 4, "all three to be under way")
        statuses = Counter(answer.status for _, answer in crowding(server, lambda _: WHOLE, clients=60, until=200))
        answers = finish(slow)

    assert statuses[200] >= 200
    assert statuses.keys() == {200, 503}
    assert [answer.status for answer in answers] == [200, 200, 200]


OTHER_WINE = [*WINE[:-1], WINE[-1] + 1]


@pytest.mark.parametrize(
    ("path", "documents"),
    [
        ("/predict", [{"features": WINE}, {"features": OTHER_WINE}]),
        ("/predict/batch", [{"features_list": [WINE] * 100}, {"features_list": [OTHER_WINE] * 100}]),
    ],
)
def test_in_an_overload_everyone_gets_the_whole_answer_to_their_own_request(
    tmp_path, published_models, path, documents
):
    def request(number: int) -> bytes:
        return numbered(number, path, documents[number % 2])

    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "1"}
    with running_server(tmp_path, settings) as server:
        calm = [server.post(path, document) for document in documents]
        answers = list(crowding(server, request, clients=60, until=300))

    assert told(calm[0]) != told(calm[1])
    answered = [(number, answer) for number, answer in answers if answer.status == 200]
    assert len(answered) >= 300
    assert len(answers) > len(answered)  # it was an overload
    for number, answer in answers:
        assert answer.request_id == str(number)
        assert answer.headers["Connection"] == ("keep-alive" if answer.status == 200 and number % 3 else "close")
    for number, answer in answered:
        assert told(answer) == told(calm[number % 2])
        assert answer.headers.keys() == calm[0].headers.keys()


def test_who_is_answered_in_an_overload_does_not_wait_for_the_body_of_another(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "1", "WEB_THREADS": "16"}
    with ExitStack() as connections, running_server(tmp_path, settings) as server:
        slow = []
        for number, (_, answer) in enumerate(crowding(server, lambda _: WHOLE, clients=60, until=500)):
            assert answer.status in {200, 503}
            if number % 50 == 49 and len(slow) < 12:
                slow.append(connections.enter_context(server.connected()))
                slow[-1].sendall(WHOLE[:-1])
        answers = finish([each for each in slow if not select.select([each], [], [], 0)[0]])  # the others were refused

    assert {answer.status for answer in answers} == {200}


def told(answer: Answer) -> dict[str, Any]:
    return answer.json | {"processing_time_ms": None}


def numbered(number: int, path: str, document: Any) -> bytes:
    """A request with a number; each third is the last on its connection."""
    body = json.dumps(document).encode()
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"Host: wine", b"Content-Type: application/json"]
    lines += [b"X-Request-ID: %d" % number, b"Content-Length: %d" % len(body)]
    lines += [] if number % 3 else [b"Connection: close"]
    return b"\r\n".join([*lines, b"", body])


def crowding(server: Server, request: Callable[[int], bytes], *, clients: int, until: int):
    """Have so many clients ask again and again, on kept connections while they can, until so many were answered 200.

    Yields the number of each request and the answer. Each client is answered at last, or this raises.
    """
    numbers, answered = itertools.count(), 0
    with ExitStack() as connections:
        asking: dict[socket.socket, int] = {}

        def ask(connection: socket.socket) -> None:
            asking[connection] = next(numbers)
            connection.sendall(request(asking[connection]))

        for _ in range(clients):
            ask(connections.enter_context(server.connected()))
        while asking:
            ready = select.select(list(asking), [], [], 10)[0]
            assert ready, f"{len(asking)} clients wait in vain"
            for connection in ready:
                answer = read_answer(connection)
                yield asking.pop(connection), answer
                answered += answer.status == 200
                if answered < until:
                    is_kept = answer.headers["Connection"] == "keep-alive"
                    ask(connection if is_kept else connections.enter_context(server.connected()))


def test_who_waits_when_a_worker_is_told_to_stop_is_answered_or_refused_not_reset(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "1", "WEB_THREADS": "1"}
    with ExitStack() as connections, running_server(tmp_path, settings | {"MAX_IN_FLIGHT": "2"}) as server:
        with filled(server):
            crowd = [connections.enter_context(server.connected()) for _ in range(50)]
            for connection in crowd:
                connection.sendall(WHOLE)
            refused(server, WHOLE)  # the others are about to be
            late = [connections.enter_context(server.connected()) for _ in range(10)]
            for connection in late:
                connection.sendall(WHOLE)
            server.send(signal.SIGTERM)
            answers = [read_answer(connection) for connection in crowd + late]
        assert server.wait_for_end() == 0

    assert {answer.status for answer in answers} == {503}


def test_the_callers_request_id_is_kept(server: Server):
    with filled(server):
        answer = refused(server, HEAD + b"X-Request-ID: my-own.id/1\r\n\r\n" + BODY)

    assert answer.request_id == "my-own.id/1"


def test_refusals_are_counted_and_logged_together(server: Server):
    with filled(server):
        before = server.metric('wine_errors_total{code="overloaded"}')
        refused(server, HEAD + b"\r\n" + BODY)
        after = server.metric('wine_errors_total{code="overloaded"}')

    assert after == before + 1
    assert server.wait_for_line("requests refused")["requests"] >= 1


def test_who_connects_and_says_nothing_takes_nobodys_place(server: Server):
    with ExitStack() as connections:
        for _ in range(10):
            connections.enter_context(server.connected())

        assert server.post("/predict", {"features": WINE}).status == 200


def test_who_does_not_close_after_the_last_answer_keeps_no_thread_from_others(server: Server):
    last = HEAD + b"Connection: close\r\n\r\n" + BODY
    began = time.monotonic()
    with ExitStack() as connections:
        for _ in range(20):
            connection = connections.enter_context(server.connected())
            connection.sendall(last)
            assert read_answer(connection).status == 200

    assert time.monotonic() - began < 5  # half a second for each, where a thread waits for the client


def test_a_silent_connection_does_not_keep_a_worker_from_stopping(tmp_path, published_models):
    with running_server(tmp_path, {"MODEL_DIR": str(published_models.path)}) as server, server.connected():
        server.get("/health/live")
        began = time.monotonic()
        assert server.stop() == 0

    assert time.monotonic() - began < 20  # it waits 25 s for requests under way


# What is answered


@pytest.mark.parametrize("beginning", [b"", b"\r\n\r\n", b"HEAD / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"X-Request-ID: a"])
def test_every_refusal_is_whole(beginning):
    head, _, body = overload.Beginning(beginning).refusal().partition(b"\r\n\r\n")

    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    assert len(body) in ({0} if beginning.startswith(b"HEAD ") else {length})


def test_a_request_id_in_a_body_does_not_count():
    beginning = overload.Beginning(b"POST / HTTP/1.1\r\n\r\n\r\nX-Request-ID: smuggled\r\n")

    assert b"smuggled" not in beginning.refusal()


# Deadlines


def test_after_its_deadline_a_request_gets_no_model_work(client):
    answer = client.post("/predict", json={"features": WINE}, headers={"X-Request-Deadline-Ms": "0"})

    assert answer.status_code == 503
    assert problem_in(answer)["code"] == "deadline_exceeded"
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("milliseconds", ["60000", "86400000"])
def test_before_its_deadline_a_request_is_answered(client, milliseconds):
    answer = client.post("/predict", json={"features": WINE}, headers={"X-Request-Deadline-Ms": milliseconds})

    assert answer.status_code == 200


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "86400001", "9" * 30, "٣", "1 2"], ids=ascii)
def test_a_deadline_that_is_none_is_refused(client, text):
    headers = {"X-Request-Deadline-Ms": text.encode().decode("latin-1")}

    answer = client.post("/predict", json={"features": WINE}, headers=headers)

    assert answer.status_code == 422
    assert problem_in(answer)["errors"][0]["code"] == "invalid_parameter"


def test_a_deadline_counts_from_the_arrival_not_from_when_a_thread_is_free(server: Server):
    with ExitStack() as connections:
        busy = connections.enter_context(server.connected())
        busy.sendall(HEAD + b"\r\n" + BODY[:-1])
        waiting = connections.enter_context(server.connected())
        waiting.sendall(HEAD + b"X-Request-Deadline-Ms: 1\r\n\r\n" + BODY)
        server.get("/health/live")
        seen = time.monotonic()
        wait_until(lambda: time.monotonic() > seen + 0.005, "the deadline to pass")
        before = server.metric("wine_prediction_rows_total")
        busy.sendall(BODY[-1:])
        answer = read_answer(waiting)

    assert read_problem(answer.status, answer.headers, answer.body)["code"] == "deadline_exceeded"
    assert server.metric("wine_prediction_rows_total") == before + 1  # of the other request
