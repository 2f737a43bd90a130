"""What remains of the service when five times as much comes as it can answer.

    python -m benchmarks.overload [--seconds 60] [--rows 100 1000] [--workers 1]

First a few clients that wait for their answers find what is sustainable: the peak. Then requests come at five times
that rate, whatever happens to those before them, as real ones do: each on a connection of its own, or on one of those
that are open and idle. Meanwhile somebody asks for health ten times a second.

The service has one half of the processors, and those who ask the other: whoever sends five times as much also computes
five times as much, which would look as if it were the service's loss.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from tests.server import running_server
from wine_api.api.examples import RED

TIMES = 5
CLIENTS = 8  # that find the peak
HEALTH_EVERY = 0.1
GIVES_UP_AFTER = 30.0
MOST_OPEN = 4000  # connections at a time

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, and the request that is under way on it."""

    sock: socket.socket
    events: int = 0  # that are looked at
    is_idle: bool = False
    kind: str = ""
    began: float = 0.0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytes = b""


class Clients:
    """Sends requests and keeps how they were answered: by kind and status, the milliseconds of each."""

    def __init__(self, port: int, *, kept: bool) -> None:
        self._address = ("127.0.0.1", port)
        self._kept = kept
        self._epoll = select.epoll()  # `selectors` takes a third longer, which would count as the service's time
        self._connections: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self.open = 0
        self.answers: dict[tuple[str, int], list[float]] = defaultdict(list)

    def begin(self, kind: str, request: bytes) -> None:
        """Send *request*; its answer is noted under *kind*."""
        connection = (kind != "health" and self._take_idle()) or self._connect()
        connection.kind, connection.began, connection.is_idle = kind, time.perf_counter(), False
        connection.unsent, connection.received = memoryview(request), b""
        self.open += 1
        self._send(connection)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle:
                return connection
        return None

    def _connect(self) -> Connection:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self._address)
        connection = self._connections[sock.fileno()] = Connection(sock, select.EPOLLIN)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _send(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(connection, 0)
            return
        connection.unsent = connection.unsent[sent:]
        events = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
        if connection.events != events:
            connection.events = events
            self._epoll.modify(connection.sock.fileno(), events)

    def turn(self, seconds: float) -> int:
        """Do what can be done, for at most *seconds*; return how many requests ended."""
        before = self.open
        for descriptor, events in self._epoll.poll(max(0.0, seconds)):
            connection = self._connections[descriptor]
            if events & ~select.EPOLLOUT:
                self._receive(connection)
            else:
                self._send(connection)
        return before - self.open

    def _receive(self, connection: Connection) -> None:
        try:
            received = connection.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        connection.received += received
        if connection.is_idle:  # closed while nothing was under way
            self._forget(connection)
        elif not received:
            self._end(connection, _status_if_whole(connection.received))
        elif self._kept and (status := _status_if_whole(connection.received)):
            self._end(connection, status)

    def _end(self, connection: Connection, status: int) -> None:
        self.open -= 1
        self.answers[connection.kind, status].append(1000 * (time.perf_counter() - connection.began))
        if self._kept and status and b"\r\nConnection: close" not in connection.received:
            connection.is_idle = True
            self._idle.append(connection)
        else:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.is_idle = False
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def end(self) -> None:
        """Wait for what is under way, and close everything."""
        deadline = time.perf_counter() + GIVES_UP_AFTER
        while self.open and time.perf_counter() < deadline:
            self.turn(0.1)
        for connection in list(self._connections.values()):
            if not connection.is_idle:
                self.answers[connection.kind, 0].append(1000 * (time.perf_counter() - connection.began))
            self._forget(connection)


def _status_if_whole(answer: bytes) -> int:
    head, found, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return int(head[9:12]) if found and len(body) >= int(length or 0) else 0


@contextmanager
def _clients(port: int, *, kept: bool) -> Iterator[Clients]:
    clients = Clients(port, kept=kept)
    yield clients
    clients.end()


def patient(clients: Clients, request: bytes, seconds: float) -> None:
    """Keep `CLIENTS` requests under way."""
    end = time.perf_counter() + seconds
    for _ in range(CLIENTS):
        clients.begin("predict", request)
    while time.perf_counter() < end:
        for _ in range(clients.turn(0.1)):
            clients.begin("predict", request)


def flood(clients: Clients, request: bytes, seconds: float, rate: float) -> None:
    """Begin *rate* requests a second, and a health check every `HEALTH_EVERY` seconds."""
    began, asked, checked = time.perf_counter(), 0, 0
    while (elapsed := time.perf_counter() - began) < seconds:
        if elapsed > checked * HEALTH_EVERY:
            clients.begin("health", HEALTH)
            checked += 1
        for _ in range(min(int(elapsed * rate) - asked, 50, MOST_OPEN - clients.open)):
            clients.begin("predict", request)
            asked += 1
        clients.turn((asked + 1) / rate - elapsed)


def told(answers: dict[tuple[str, int], list[float]], seconds: float) -> dict[str, dict[str, float]]:
    """Return for each kind and status how many a second there were, and how long they took."""
    return {
        f"{kind} {status or 'lost'}": {
            "per_second": round(len(took) / seconds, 1),
            "p50_ms": round(sorted(took)[len(took) // 2], 2),
            "p99_ms": round(sorted(took)[int(len(took) * 0.99)], 2),
            "slowest_ms": round(max(took), 2),
        }
        for (kind, status), took in sorted(answers.items())
    }


def measure(port: int, request: bytes, seconds: float, *, kept: bool) -> dict[str, Any]:
    """Return what was answered at the peak, and at `TIMES` the rate of the peak."""
    with _clients(port, kept=kept) as clients:
        patient(clients, request, 2)
    with _clients(port, kept=kept) as clients:
        patient(clients, request, seconds)
    peak = told(clients.answers, seconds)
    rate = TIMES * peak["predict 200"]["per_second"]
    with _clients(port, kept=kept) as clients:
        flood(clients, request, seconds, rate)
    overload = told(clients.answers, seconds)
    goodput = overload["predict 200"]["per_second"] / peak["predict 200"]["per_second"]
    return {"peak": peak, "asked_per_second": rate, "overload": overload, "goodput": round(goodput, 3)}


def request_of(rows: int, *, kept: bool) -> bytes:
    path, document = "/predict/batch", json.dumps({"features_list": [RED] * rows})
    if rows == 1:
        path, document = "/predict", json.dumps({"features": RED})
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: {'keep-alive' if kept else 'close'}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(document)}\r\n\r\n{document}"
    ).encode()


def show(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: {found['goodput']:.2f} of the peak, asked {found['asked_per_second']:.0f}/s")
    for phase in ("peak", "overload"):
        for kind, figures in found[phase].items():
            print(f"  {phase:9}{kind:13}" + ", ".join(f"{value} {name}" for name, value in figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--workers", type=int, help="default: as many as the service has processors")
    parser.add_argument("--output", type=Path, default=machine.result_path("overload"))
    arguments = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))
    half = max(1, len(processors) // 2)
    settings = {"WEB_CONCURRENCY": str(arguments.workers or half)}
    os.sched_setaffinity(0, processors[:half])
    found = {}
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder), settings) as server:
        os.sched_setaffinity(0, processors[-half:])
        port = int(server.url.rpartition(":")[2])
        for rows in arguments.rows:
            for kept in (False, True):
                name = f"{rows} rows, " + ("kept connections" if kept else "new connections")
                found[name] = measure(port, request_of(rows, kept=kept), arguments.seconds, kept=kept)
                show(name, found[name])
    machine.write(arguments.output, seconds=arguments.seconds, settings=settings, found=found)


if __name__ == "__main__":
    main()
