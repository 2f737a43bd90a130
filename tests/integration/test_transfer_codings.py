"""Real Gunicorn: what may be done to a body on its way, and what a proxy may say of the way."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.integration.problems import read_problem
from tests.models import WINE
from tests.server import Server, running_server

BODY = json.dumps({"features": WINE}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory, published_models):
    """Gunicorn, for all tests of this file."""
    with running_server(tmp_path_factory.mktemp("codings"), {"MODEL_DIR": str(published_models.path)}) as server:
        yield server


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_a_body_in_chunks_is_taken(server: Server, coding):
    assert server.send_raw(HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + chunked(BODY)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
    ],
    ids=["gzip", "gzip in a header of its own", "identity"],
)
@pytest.mark.parametrize("path", [b"/predict", b"/predict/batch", b"/model/reload"])
@pytest.mark.parametrize("body", [BODY, gzip.compress(BODY)], ids=["plain", "compressed"])
def test_a_body_in_any_other_transfer_coding_is_refused(server: Server, headers, path, body):
    answer = server.send_raw(HEAD.replace(b"/predict", path) + headers + b"\r\n" + chunked(body))

    assert answer.status == 415
    assert read_problem(answer.status, answer.headers, answer.body)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("connection", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_a_refused_request_gets_one_answer_however_its_body_goes_on(server: Server, connection):
    head = HEAD.replace(b"/predict", b"/nowhere") + connection + b"Transfer-Encoding: chunked\r\n\r\n"
    with server.connected() as client:
        client.sendall(head + b"no chunk\r\n" * 3)
        received = b"".join(iter(lambda: client.recv(4096), b""))

    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("headers", "is_tls"),
    [
        ({"X-Forwarded-Proto": "https"}, True),
        ({"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"}, False),
        ({"X-Forwarded-Ssl": "on"}, False),
        ({"X-Forwarded-Protocol": "ssl"}, False),
    ],
    ids=["Proto", "Proto against Ssl", "Ssl", "Protocol"],
)
def test_only_x_forwarded_proto_says_that_the_caller_came_by_tls(server: Server, headers, is_tls):
    answer = server.get("/", headers)

    assert answer.status == 200
    assert ("Strict-Transport-Security" in answer.headers) == is_tls
