"""deploy/nginx/nginx.conf with Debian's nginx: slow clients wait there, and nobody gets in by what it passes on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.models import WINE
from tests.server import ROOT, Caller, free_port, running_server, wait_until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
SLOWHTTPTEST = shutil.which("slowhttptest")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx")
BODY = json.dumps({"features": WINE}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory, published_models):
    with running_server(tmp_path_factory.mktemp("behind"), {"MODEL_DIR": str(published_models.path)}) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, server):
    """Calls the service through nginx, with the file as it is but for its addresses and where it may write."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("127.0.0.1:8000", server.url[7:])
    text = text.replace("/run/nginx.pid", f"{folder}/nginx.pid")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(re.sub(r"^http \{\n", f"http {{\n{own}", text, flags=re.MULTILINE))
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"],
        stderr=subprocess.DEVNULL,
    )
    caller = Caller(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: process.poll() is None and answers(caller), "nginx")
        yield caller
    finally:
        process.terminate()
        process.wait()


def answers(caller):
    try:
        return caller.get("/health/live").status == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    "beginning",
    [
        b"POST /predict HTTP/1.1\r\nHost: wine\r\n",
        b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Type: application/json\r\nContent-Length: 155\r\n\r\n{",
        b"POST /predict HTTP/1.1\r\nHost: wine\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        b"",
    ],
    ids=["headers", "body", "chunks", "nothing"],
)
def test_four_hundred_slow_clients_keep_nobody_else_waiting(proxy, beginning):
    with ExitStack() as connections:
        for _ in range(400):
            connections.enter_context(proxy.connected()).sendall(beginning)

        statuses = [proxy.post("/predict", {"features": WINE}).status for _ in range(50)]

    assert statuses == [200] * 50


@pytest.mark.skipif(SLOWHTTPTEST is None, reason="no slowhttptest")
@pytest.mark.parametrize("attack", ["-H", "-B", "-X"], ids=["slow headers", "slow bodies", "slow reading"])
def test_slowhttptest_keeps_nobody_else_waiting(proxy, attack):
    """With 400 connections, of which nginx holds as many as the tool can keep up."""
    slow = subprocess.Popen(
        [SLOWHTTPTEST, attack, "-c", "400", "-r", "400", "-i", "5", "-l", "60", "-u", f"{proxy.url}/predict"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: connections_to(proxy) >= 300, "slow connections")
        statuses = [proxy.post("/predict", {"features": WINE}).status for _ in range(50)]
        held = connections_to(proxy)
    finally:
        slow.kill()
        slow.wait()

    assert statuses == [200] * 50
    assert held >= 300


def connections_to(caller: Caller) -> int:
    """How many connections are open at the port of *caller*."""
    local, established = f":{int(caller.url.rpartition(':')[2]):04X}", "01"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(local) and fields[3] == established for fields in lines)


def test_an_answer_comes_through_as_it_is(proxy):
    answer = proxy.post("/predict", {"features": ["x"] * 11}, {"X-Request-ID": "mine"})

    assert answer.status == 422
    assert answer.request_id == "mine"
    assert answer.json["code"] == "validation_failed"


@pytest.mark.parametrize(
    "spoofed",
    [{}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}],
    ids=str,
)
def test_nobody_becomes_local_behind_it(proxy, spoofed):
    assert proxy.post("/model/reload", {}, spoofed).status == 403


def test_the_service_sees_who_called_whatever_they_say(proxy, server):
    answer = proxy.get("/", {"X-Forwarded-For": "198.51.100.66", "X-Forwarded-Prefix": "/elsewhere"})

    assert server.access_lines(answer.request_id)[0]["client"] == "127.0.0.1"
    assert answer.json["links"]["predict"] == "/predict"
