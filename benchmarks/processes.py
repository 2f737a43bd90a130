"""A server that is measured: started, watched from outside, and stopped."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_STARTS_WITHIN = 60.0
ROOT = Path(__file__).parents[1]
GUNICORN = (sys.executable, "-m", "gunicorn")


@dataclass(frozen=True)
class Server:
    """A Gunicorn, which answers on *port*."""

    process: subprocess.Popen[bytes]
    port: int
    started: float

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        """Return the master and its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def cpu_seconds(self) -> float:
        """Return what all processes have computed so far, in user and in system mode."""
        return sum(_cpu_seconds(pid) for pid in self.pids())

    def pss_bytes(self) -> int:
        """Return the memory of all processes; what several share counts once."""
        return sum(self.pss_of_each())

    def pss_of_each(self) -> list[int]:
        return [_pss_bytes(pid) for pid in self.pids()]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return 1024 * int(found.group(1)) if found else 0


@contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str], body: bytes) -> Iterator[Server]:
    """Run Gunicorn with *arguments*; begins when it has answered *body*, and ends it."""
    port = _free_port()
    started = time.perf_counter()
    process = subprocess.Popen(
        [*GUNICORN, *arguments, "--bind", f"127.0.0.1:{port}"],
        cwd=ROOT,
        env={**os.environ, "PORT": str(port), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(process, port, started)
    try:
        _wait_for_answer(server, body)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def first_answer_seconds(arguments: Sequence[str], environment: Mapping[str, str], body: bytes) -> float:
    """Return how long it takes from the start to the first prediction."""
    with running(arguments, environment, body) as server:
        return time.perf_counter() - server.started


def _wait_for_answer(server: Server, body: bytes) -> None:
    deadline = time.perf_counter() + _STARTS_WITHIN
    while time.perf_counter() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}")
        try:
            if ask(server, "/predict", body)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.005)
    raise RuntimeError("the server did not answer")


def ask(server: Server, path: str, body: bytes) -> tuple[int, bytes]:
    """Post *body* and return the status and the body of the answer."""
    connection = http.client.HTTPConnection(server.address, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
