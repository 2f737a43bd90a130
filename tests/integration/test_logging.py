"""Real Gunicorn: its log, whoever reads it, whatever callers send."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from tests.models import WINE
from tests.server import ROOT, Server, free_port, running_server, wait_until

HOSTILE = 600
SPECIAL = [*'"{}[]\\:,\t', "\\n", "\\u0000", "\\ud800", "é", "\x85", "\xff", "%0a", "%00", "x" * 300]


@pytest.fixture
def unread(tmp_path, published_models):
    """A service whose standard output is a pipe that nobody reads."""
    port = free_port()
    environment = {
        "PATH": "/usr/bin:/bin",
        "STATE_DIR": str(tmp_path / "state"),
        "MODEL_CACHE_DIR": str(tmp_path / "cache"),
        "MODEL_DIR": str(published_models.path),
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    server = Server(process, f"http://127.0.0.1:{port}", tmp_path / "output.log")
    (tmp_path / "output.log").touch()
    try:
        server.wait_for("/health/ready")
        yield server
    finally:
        process.kill()
        process.communicate()


def test_predictions_go_on_and_lost_lines_are_counted_while_nobody_reads_the_log(unread: Server):
    """A full pipe takes 64 KB, and then 5000 lines wait."""
    wait_until(lambda: fill(unread) and unread.metric("wine_log_lines_dropped_total") > 0, "lines to be lost")

    assert unread.post("/predict", {"features": WINE}).status == 200
    assert unread.get("/health/ready").status == 200
    assert unread.stop() == 0


def fill(server: Server) -> bool:
    """Make a thousand log lines."""
    with server.connected() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: wine\r\n\r\n" * 1000)
        received = b""
        while received.count(b"HTTP/1.1 200") < 1000:
            received += connection.recv(65536)
    return True


def test_whatever_callers_send_every_line_is_json(tmp_path, published_models):
    with running_server(tmp_path, {"MODEL_DIR": str(published_models.path)}) as server:
        statuses = send_hostile(server, HOSTILE)
        server.stop()

    requests = [line for line in server.lines() if line["logger"] == "wine_api.access"]
    assert server.output.endswith("\n")
    assert len(requests) >= HOSTILE
    assert statuses <= {200, 400, 404, 405, 415, 422}
    assert {line["level"] for line in requests} == {"INFO"}
    assert not any("forged" in line for line in server.lines())


def send_hostile(server: Server, count: int) -> set[int]:
    """Send *count* requests with hostile headers, paths and bodies; return the statuses of the answers."""
    chance = random.Random(5)
    return {server.send_raw(hostile(chance)).status for _ in range(count)}


def hostile(chance: random.Random) -> bytes:
    def text() -> bytes:
        parts = [
            chance.choice([*SPECIAL, '"}\\n{"forged": 1, "level": "CRITICAL"']) for _ in range(chance.randint(1, 5))
        ]
        return "".join(parts).encode("utf-8", "replace")

    body = chance.choice([json.dumps({"features": WINE}).encode(), text(), b'{"features": "' + text() + b'"}'])
    return (
        b"POST /" + chance.choice([b"predict", b"predict", text().replace(b" ", b"").replace(b"\t", b"")])
        + b" HTTP/1.1\r\nHost: wine\r\nConnection: close\r\nX-Request-ID: " + text()
        + b"\r\nUser-Agent: " + text()
        + b"\r\nX-Forwarded-For: " + text()
        + b"\r\ntraceparent: " + text()
        + b"\r\nContent-Type: " + chance.choice([b"application/json", b"application/json", text()])
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )  # fmt: skip


def test_lines_for_people(tmp_path, published_models):
    with running_server(tmp_path, {"MODEL_DIR": str(published_models.path), "LOG_FORMAT": "console"}) as server:
        server.post("/predict", {"features": WINE}, {"X-Request-ID": "my-request"})
        server.stop()

    (line,) = (line for line in server.output.splitlines() if "my-request" in line)
    assert "INFO     request  " in line
    assert "path=/predict status=200" in line


def test_what_is_logged_and_asked_to_be_quiet_is_quiet(tmp_path, published_models):
    quiet = {"MODEL_DIR": str(published_models.path), "LOG_LEVEL": "WARNING"}
    with running_server(tmp_path, quiet) as server:
        server.post("/predict", {"features": WINE})
        server.stop()

    assert {line["level"] for line in server.lines()} <= {"WARNING", "ERROR", "CRITICAL"}
