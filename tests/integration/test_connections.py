"""Connections that clients keep: whatever they send on them, and whenever, each request is answered."""

from __future__ import annotations

import json

import pytest

from tests.models import WINE
from tests.server import Server, read_answer, running_server

BODY = json.dumps({"features": WINE}).encode()
REQUEST = b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
ANSWERED = b'"features_processed":11}'


@pytest.fixture(scope="module")
def server(tmp_path_factory, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "1"}
    with running_server(tmp_path_factory.mktemp("connections"), settings) as server:
        yield server


def count_answers(connection, most: int) -> int:
    """Read until there are so many answers, or the server closes the connection."""
    received = b""
    while received.count(ANSWERED) < most and (part := connection.recv(1 << 16)):
        received += part
    return received.count(ANSWERED)


def test_requests_that_come_while_one_is_under_way_are_answered(server: Server):
    with server.connected() as connection:
        for _ in range(200):
            connection.sendall(REQUEST)
            connection.sendall(REQUEST)
            assert count_answers(connection, 2) == 2


def test_requests_that_come_all_at_once_are_answered(server: Server):
    with server.connected() as connection:
        connection.sendall(REQUEST * 100)  # more than the server reads at a time

        assert count_answers(connection, 100) == 100


def test_a_request_in_two_parts_is_answered_and_so_is_the_next(server: Server):
    with server.connected() as connection:
        for cut in (1, 60, len(REQUEST) - 1) * 10:
            connection.sendall(REQUEST[:cut])
            assert server.get("/health/live").status == 200  # meanwhile the first part has come
            connection.sendall(REQUEST[cut:])
            assert read_answer(connection).status == 200


def test_connections_come_and_go_and_those_that_stay_are_answered(server: Server):
    with server.connected() as staying:
        for _ in range(100):
            staying.sendall(REQUEST)
            assert read_answer(staying).status == 200
            with server.connected() as connection:
                connection.sendall(REQUEST)
                assert read_answer(connection).status == 200
