"""Gunicorn as in production, on a free port of the loopback interface, and what can be seen of it from outside."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests import secrecy

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 45.0  # generous: the machine may be busy with everything else
_POLL_SECONDS = 0.02

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Ask *condition* until what it returns is true, and return that; *what* says in words what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(_POLL_SECONDS)
    return found


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def request_id(self) -> str:
        return self.headers["X-Request-ID"]

    def keeps_to_itself(self, secrets: Iterable[bytes], where: str) -> None:
        """Raise AssertionError if one of *secrets* is in it."""
        secrecy.check(f"{self.headers}".encode() + self.body, secrets, where)


class Caller:
    """Sends requests to the service at *url*; knows nothing else of it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._parts = urllib.parse.urlsplit(self.url)
        self.secrets: set[bytes] = set()  # which nobody may read

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """Send *document* as JSON."""
        return self.ask(
            "POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"} | {**(headers or {})}
        )

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        connection = self._connection()
        self.secrets |= secrecy.in_headers(headers or {})
        try:
            connection.request(method, self._parts.path + path, body, dict(headers or {}), **options)
            answer = _answer(connection.getresponse())
        finally:
            connection.close()
        answer.keeps_to_itself(self.secrets, f"the answer to {method} {path}")
        return answer

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Open a bare connection, for what no HTTP client would send."""
        with socket.create_connection((self._parts.hostname, self._parts.port), timeout=PATIENCE_SECONDS) as connection:
            yield connection

    def send_raw(self, content: bytes, *, hang_up: bool = False) -> Answer:
        """Send *content* as it is and return the answer to it; *hang_up* says that no more will come."""
        self.secrets |= secrecy.in_request(content)
        with self.connected() as connection:
            connection.sendall(content)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            answer = read_answer(connection)
        answer.keeps_to_itself(self.secrets, f"the answer to {content[:100]!r}")
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.netloc, timeout=PATIENCE_SECONDS)


def read_answer(connection: socket.socket) -> Answer:
    """Read one response off *connection*."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    answer = _answer(response)
    response.close()
    return answer


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.read())


class Server(Caller):
    """A running Gunicorn with our service."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, output: Path, secrets: Iterable[bytes] = ()) -> None:
        super().__init__(url)
        self.process = process
        self._output = output
        self.secrets.update(secrets)

    @property
    def folder(self) -> Path:
        """Where it keeps what it writes."""
        return self._output.parent

    def has_written_no_secret(self) -> None:
        """Raise AssertionError if a secret is in its log, or in anything else that it wrote there."""
        secrecy.check(self._output.read_bytes(), self.secrets, f"the log in {self._output}")

    @property
    def output(self) -> str:
        """All that was written to standard output and standard error."""
        return self._output.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines so far; every one of them must be a JSON object. The last may be half written."""
        *whole, _ = self.output.split("\n")
        lines = [json.loads(line) for line in whole]
        assert all(isinstance(line, dict) for line in lines)
        return lines

    def access_lines(self, request_id: str) -> list[dict[str, Any]]:
        """Return the access lines with *request_id*. The line follows the answer, so the first is waited for."""
        return wait_until(
            lambda: [
                line
                for line in self.lines()
                if line["logger"] == "wine_api.access" and line.get("request_id") == request_id
            ],
            f"an access line with the id {request_id}",
        )

    def wait_for_line(self, message: str) -> dict[str, Any]:
        """Wait until a line whose message begins with *message* was written, and return it."""
        return wait_until(
            lambda: next((line for line in self.lines() if line["message"].startswith(message)), None),
            f"a log line {message!r}",
        )

    def answers(self, path: str, status: int) -> bool:
        """Whether a GET of *path* is answered with *status* right now."""
        try:
            return self.get(path).status == status
        except (OSError, http.client.HTTPException):
            return False

    def wait_for(self, path: str, status: int = 200) -> None:
        """Wait until a GET of *path* answers with *status*; notice if the server ends instead."""
        wait_until(
            lambda: self.answers(path, status) or self._has_ended(),
            f"{path} answering {status}; the server said:\n{self.output}",
        )

    def _has_ended(self) -> bool:
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"the server ended with {code} and said:\n{self.output}")
        return False

    def worker_pids(self) -> set[int]:
        """Return the processes that the master has forked."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers as `GET /model` shows them; none if the one that answers has no model itself."""
        return self.get("/model").json.get("workers", [])

    def has_converged(self) -> bool:
        """Whether two workers, as tests run them, have the model that the host agreed on."""
        return [worker["converged"] for worker in self.workers()] == [True, True]

    def metric(self, sample: str) -> float:
        """Return the value of *sample*, a name with its labels as Prometheus writes them; 0 if it is not there."""
        for line in self.get("/metrics").text.splitlines():
            if line.rpartition(" ")[0] == sample:
                return float(line.rpartition(" ")[2])
        return 0.0

    def send(self, number: signal.Signals) -> None:
        """Send the signal *number* to the master."""
        self.process.send_signal(number)

    def wait_for_end(self) -> int:
        """Wait until the master has ended, and return its exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send *number* to the master and return its exit code."""
        self.send(number)
        return self.wait_for_end()


STARTED: list[Server] = []  # by this run of the tests, until what they wrote has been looked through


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(
    folder: Path,
    settings: Mapping[str, str] | None = None,
    *,
    port: int | None = None,
    cwd: Path = ROOT,
    through: Sequence[str] = (),
) -> Server:
    """Start Gunicorn with *settings* and nothing else in its environment; it keeps what it writes under *folder*.

    *cwd* has gunicorn.conf.py and wsgi.py; *through* is a command that runs the command that follows it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "STATE_DIR": str(folder / "state"),
        "MODEL_CACHE_DIR": str(folder / "cache"),
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        **secrecy.PLANTED,
        **(settings or {}),
    }
    output = folder / f"output-{port}.log"
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*through, sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"],
            cwd=cwd,
            env={name: value for name, value in environment.items() if value},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, f"http://127.0.0.1:{port}", output, secrecy.in_environment(environment))
    STARTED.append(server)
    return server


@contextmanager
def running_server(
    folder: Path, settings: Mapping[str, str] | None = None, *, until: str = "/health/ready"
) -> Iterator[Server]:
    """Run Gunicorn with *settings*, from when it answers at *until*."""
    with ended_at_last(start_server(folder, settings)) as server:
        server.wait_for(until)
        yield server


@contextmanager
def ended_at_last(server: Server) -> Iterator[Server]:
    """Stop *server* at the end, if it still runs."""
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.send(signal.SIGTERM)
            try:
                server.process.wait(PATIENCE_SECONDS)
            finally:
                server.process.kill()
                server.process.wait()
        server.has_written_no_secret()
        STARTED.remove(server)
