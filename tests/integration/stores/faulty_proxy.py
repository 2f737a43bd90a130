"""A proxy that stands before S3 and does what servers and networks do on a bad day."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Exchange:
    """One request that has been answered by S3, with the answer not yet passed on."""

    handler: BaseHTTPRequestHandler
    closing: threading.Event
    status: int
    headers: dict[str, str]
    body: bytes

    def send_head(self) -> None:
        self.handler.send_response_only(self.status)
        for name, value in self.headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def send(self, content: bytes) -> None:
        self.handler.wfile.write(content)
        self.handler.wfile.flush()

    def hang_up(self) -> None:
        self.handler.close_connection = True
        self.handler.connection.shutdown(socket.SHUT_RDWR)


Fault = Callable[[Exchange], None]


def none(exchange: Exchange) -> None:
    """Pass the answer on as it is."""
    exchange.send_head()
    if exchange.handler.command != "HEAD":
        exchange.send(exchange.body)


def status(code: int, error: str = "") -> Fault:
    """Answer with *code* in place of what S3 said."""

    def fault(exchange: Exchange) -> None:
        exchange.status = code
        exchange.body = f"<Error><Code>{error}</Code><Message>{error}</Message></Error>".encode() if error else b""
        exchange.headers = {"Content-Length": str(len(exchange.body)), "Content-Type": "application/xml"}
        none(exchange)

    return fault


def garbage(exchange: Exchange) -> None:
    """Answer what is not HTTP."""
    exchange.send(b"\x16\x03\x01 SSH-2.0 hello\r\n\r\n")
    exchange.hang_up()


def not_xml(exchange: Exchange) -> None:
    """Answer with the login page of somebody's network."""
    exchange.status, exchange.body = 200, b"<html>Please log in<br>"
    exchange.headers = {"Content-Length": str(len(exchange.body))}
    none(exchange)


def reset(exchange: Exchange) -> None:
    """Break the connection off with a reset."""
    exchange.handler.close_connection = True
    exchange.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(exchange.handler.connection.detach())


def silence(exchange: Exchange) -> None:
    """Take the request and never answer."""
    exchange.handler.close_connection = True
    exchange.closing.wait()


def cut(after: int) -> Fault:
    """Send only the first *after* bytes of the body of each answer."""

    def fault(exchange: Exchange) -> None:
        exchange.send_head()
        exchange.send(exchange.body[:after])
        exchange.hang_up()

    return fault


def cut_at(position: int) -> Fault:
    """Send nothing that lies beyond *position* of the object, however often one asks."""

    def fault(exchange: Exchange) -> None:
        start = int(exchange.handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        cut(max(0, position - start))(exchange)

    return fault


def trickle(bytes_per_second: int) -> Fault:
    """Send the body, but slowly."""

    def fault(exchange: Exchange) -> None:
        exchange.handler.close_connection = True
        exchange.send_head()
        _trickle(exchange, exchange.body, bytes_per_second)

    return fault


def trickle_headers(bytes_per_second: int) -> Fault:
    """Send even the headers slowly: no silence is ever long."""

    def fault(exchange: Exchange) -> None:
        exchange.handler.close_connection = True
        _trickle(exchange, b"HTTP/1.1 200 OK\r\n" + b"X-Padding: padding\r\n" * 1000, bytes_per_second)

    return fault


def _trickle(exchange: Exchange, content: bytes, bytes_per_second: int) -> None:
    for start in range(len(content)):
        try:
            exchange.send(content[start : start + 1])
        except OSError:  # the other side has given up
            return
        if exchange.closing.wait(1 / bytes_per_second):
            return


def meanwhile(event: Callable[[], object], after: int) -> Fault:
    """Let *event* happen when *after* bytes of the body have been sent, then break the connection off."""

    def fault(exchange: Exchange) -> None:
        exchange.send_head()
        exchange.send(exchange.body[:after])
        event()
        exchange.hang_up()

    return fault


def and_then(event: Callable[[], object]) -> Fault:
    """Let *event* happen right after S3 has answered."""

    def fault(exchange: Exchange) -> None:
        event()
        none(exchange)

    return fault


def only(path_end: str, fault: Fault) -> Fault:
    """Let *fault* happen to the answers about a certain key."""

    def chosen(exchange: Exchange) -> None:
        (fault if exchange.handler.path.partition("?")[0].endswith(path_end) else none)(exchange)

    return chosen


def corrupt(exchange: Exchange) -> None:
    """Flip the last bit."""
    exchange.body = exchange.body[:-1] + bytes([exchange.body[-1] ^ 1])
    none(exchange)


def header(name: str, value: str) -> Fault:
    """Answer with one header changed."""

    def fault(exchange: Exchange) -> None:
        exchange.headers = {key: old for key, old in exchange.headers.items() if key.lower() != name.lower()}
        exchange.headers[name] = value
        none(exchange)

    return fault


def once(fault: Fault) -> Fault:
    """Let *fault* happen to the first answer only."""
    faults = iter([fault])

    def first(exchange: Exchange) -> None:
        next(faults, none)(exchange)

    return first


@dataclass
class Request:
    method: str
    path: str
    client_port: int
    headers: dict[str, str]


@dataclass
class FaultyProxy:
    """Passes requests on to *upstream* and makes its *faults* of the answers; *requests* is what came along.

    *asked_in_addition* is added to the query of every request that has one; *dropped_header* is not passed on.
    """

    upstream: str
    asked_in_addition: str = ""
    dropped_header: str = ""
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def break_answers(self, fault: Fault, *, to: tuple[str, ...] = ("HEAD", "GET", "PUT")) -> None:
        """Make *fault* happen to the answers to these methods."""
        self.faults = dict.fromkeys(to, fault)

    def heal(self) -> None:
        """Pass everything on again, and end what hangs."""
        self.closing.set()
        self.closing = threading.Event()
        self.faults, self.asked_in_addition, self.dropped_header = {}, "", ""

    def forget(self) -> None:
        """Be as new."""
        self.heal()
        self.requests.clear()


@contextmanager
def running_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy before *upstream*, an address like `http://127.0.0.1:5000`."""
    proxy = FaultyProxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            proxy.requests.append(Request(self.command, self.path, self.client_address[1], dict(self.headers)))
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(upstream.removeprefix("http://"))
            try:
                path = self.path + (proxy.asked_in_addition if "?" in self.path else "")
                headers = {name: value for name, value in self.headers.items() if name != proxy.dropped_header}
                connection.request(self.command, path, content, {**headers, "Connection": "close"})
                answer = connection.getresponse()
                headers = {name: value for name, value in answer.getheaders() if name.lower() != "connection"}
                exchange = Exchange(self, proxy.closing, answer.status, headers, answer.read())
            finally:
                connection.close()
            try:
                proxy.faults.get(self.command, none)(exchange)
            except ConnectionError:  # the other side has given up
                self.close_connection = True

        do_HEAD = do_GET = do_PUT = do_POST = do_DELETE = pass_on

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.heal()
        server.shutdown()
        server.server_close()
        thread.join()
