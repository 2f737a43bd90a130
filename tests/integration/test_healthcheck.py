"""The image's health check, against a server that says what each test needs."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from wine_api import healthcheck


@pytest.fixture
def service(monkeypatch):
    """A service that lives and is not ready, at the PORT that is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health/live" else 503)
            self.end_headers()
            self.wfile.write(b'{"status": "loading"}')

        def log_message(self, *arguments):
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PORT", str(server.server_port))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0"])
def test_is_well_when_the_answer_is_200(monkeypatch, host):
    monkeypatch.setenv("HOST", host)

    assert healthcheck.main(["/health/live"]) == 0


@pytest.mark.usefixtures("service")
def test_asks_for_readiness_and_repeats_what_was_answered(capsys):
    code = healthcheck.main([])

    assert code == 1
    assert capsys.readouterr().out == '503 {"status": "loading"}\n'


def test_is_not_well_when_nobody_answers(monkeypatch, capsys):
    monkeypatch.setenv("PORT", "1")

    code = healthcheck.main([])

    assert code == 1
    assert "no answer" in capsys.readouterr().out


def test_is_not_well_when_the_settings_are_bad(monkeypatch, capsys):
    monkeypatch.setenv("PORT", "http")

    code = healthcheck.main([])

    assert code == 1
    assert "PORT must be" in capsys.readouterr().out
