"""Which requests are read without a parser, and what is found in them. That Gunicorn finds the same: `fuzz`."""

from __future__ import annotations

import pytest

from wine_api import plain_requests

PLAIN = b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Length: 2\r\n\r\n{}"


def test_a_plain_request_is_read():
    request = plain_requests.read(PLAIN.replace(b"Host:", b"X-Request-Id: a b, c\r\nhost:"))

    assert (request.method, request.uri, request.path, request.query) == ("POST", "/predict", "/predict", "")
    assert request.headers == [("X-REQUEST-ID", "a b, c"), ("HOST", "wine"), ("CONTENT-LENGTH", "2")]
    assert request.body.read() == b"{}"


@pytest.mark.parametrize(
    ("header", "ends"),
    [(b"A: b", False), (b"Connection: keep-alive", False), (b"connection: Close", True), (b"CONNECTION: close", True)],
)
def test_its_connection_ends_as_the_client_says(header, ends):
    assert plain_requests.read(PLAIN.replace(b"Host: wine", header)).should_close() is ends


def test_its_connection_ends_if_the_worker_says_so():
    request = plain_requests.read(PLAIN)
    request.force_close()

    assert request.should_close()


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b"POST", b"GET"),
        (b"/predict", b"/predict?a=b"),
        (b"/predict", b"/model"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Host: wine", b"Transfer-Encoding: chunked"),
        (b"Host: wine", b"Expect: 100-continue"),
        (b"Host: wine", b"Connection: upgrade\r\nUpgrade: h2c"),
        (b"Host: wine", b"Content-Length: 2"),
        (b"Host: wine", b"Host: wine\r\nhost: wine"),
        (b"Host: wine", b"Host: wine\r\n folded"),
        (b"Host: wine", b"Host : wine"),
        (b"Host: wine", b"X_A: b"),
        (b"Host: wine", b"A: \xff"),
        (b"Host: wine", b"A: b\nC: d"),
        (b"Host: wine", b"\r\n".join(b"A%d: b" % number for number in range(60))),
        (b"Length: 2", b"Length: 3"),
        (b"Length: 2", b"Length: 1"),
        (b"Length: 2", b"Length: 02"),
        (b"Length: 2", b"Length: +2"),
        (b"Length: 2\r\n\r\n{}", b"Length: 0\r\n\r\n"),
        (b"Content-Length: 2\r\n\r\n{}", b"\r\n"),
        (b"\r\n\r\n{}", b""),
        (b"{}", b"{}POST / HTTP/1.1"),
    ],
)
def test_every_other_is_left_to_gunicorn(part, other):
    assert part in PLAIN
    assert plain_requests.read(PLAIN.replace(part, other, 1)) is None
