"""Made-up requests against the reader of plain ones: it refuses, or understands what Gunicorn's parser does.

    python -m fuzz.plain_requests [--count 100000] [--seed 0]

Prints the first request that the two understand differently, and exits with 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from fuzz.mutations import mutated
from wine_api import plain_requests

CLIENT, SERVER = ("192.0.2.1", 50000), ("192.0.2.2", 8000)


def request(*headers: bytes, path: bytes = b"/predict", body: bytes = b'{"features": [7.4, 0.7]}') -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: wine", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


SEEDS = [
    request(b"Content-Type: application/json"),
    request(b"content-type: application/json", b"Connection: keep-alive", b"User-Agent: a/1.0 (b; c)", body=b"[1, 2]"),
    request(b"Content-Type: application/json", b"Connection: close", b"X-Request-ID: abc", b"X-API-Key: wk_abc"),
    request(b"X-Forwarded-For: 192.0.2.7, 192.0.2.8", b"X-Forwarded-Proto: https", path=b"/predict/batch"),
    request(b"Accept: */*", b"Accept-Encoding: gzip, br", b"Authorization: Bearer a.b.c", path=b"/predict/batch"),
]
WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b": ", b":", b"\r\n ", b"\r\n\r\n", b"\xff", b"\x7f", b";", b"_"),
    *(b"GET ", b"get ", b"HTTP/1.0", b"HTTP/2.0", b"?a=b", b"%70", b"/../predict", b"http://wine/predict", b"#", b"*"),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:chunked\r\n", b"Expect: 100-continue\r\n", b"-"),
    *(b"Content-Length: 0\r\n", b"Content-Length: 24\r\n", b"content-length: +24\r\n", b"Content-Length: 6 , 6\r\n"),
    *(b"Connection: Upgrade\r\n", b"Connection: close\r\n", b"Connection: keep-alive, close\r\n", b"Upgrade: h2c\r\n"),
    *(b"Host: b\r\n", b"Content-Type: a\r\n", b"X-A: 1\r\nX-A: 2\r\n", b"X_A: 1\r\n", b"Script-Name: /a\r\n"),
    *(b"A: b\r\n" * 60, b"A%d: b\r\n" * 3, b"X-A: " + b"a" * 500 + b"\r\n", b"0" * 10, b"9" * 10, b"\xc2\xb2"),
]
# What gunicorn.conf.py says of headers.
CONFIGURATION = Config()
CONFIGURATION.set("secure_scheme_headers", {})
CONFIGURATION.set("forwarder_headers", "")


def by_gunicorn(content: bytes) -> tuple[Request, bytes]:
    """Return the request that *content* is, all of it, and its body. Raises what Gunicorn raises."""
    source = IterUnreader([content])
    found = Request(CONFIGURATION, source, CLIENT)
    body = found.body.read()
    if source.buf.getvalue() or found.body.reader.length:
        raise AssertionError("the request does not end with what has come")
    return found, body


def said(found: Any) -> tuple[dict[str, Any], bool]:
    """Return what an application is told of a request, and whether its connection ends."""
    environ = wsgi.create(found, None, CLIENT, SERVER, CONFIGURATION)[1]
    plain = {name: value for name, value in environ.items() if isinstance(value, (str, bool, tuple))}
    return plain, found.should_close()


def check(content: bytes) -> bool:
    """Raise if *content* is read wrongly; return whether it is plain."""
    plain = plain_requests.read(content)
    if plain is None:
        return False
    full, body = by_gunicorn(content)
    if said(plain) != said(full) or plain.body.read() != body:
        raise AssertionError("a plain request is another one for Gunicorn")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, plain, began = random.Random(arguments.seed), 0, time.perf_counter()
    for number in range(arguments.count):
        content = mutated(chance, SEEDS, WORDS)
        try:
            plain += check(content)
        except Exception as error:
            sys.exit(f"request {number} of seed {arguments.seed}: {type(error).__name__}: {error}\n{content!r}")
    print(f"{arguments.count} requests in {time.perf_counter() - began:.0f} s, {plain} plain: nothing wrong")


if __name__ == "__main__":
    main()
