"""A reverse proxy that serves what is behind it under a prefix, as an ingress does."""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/wine"
_PATIENCE_SECONDS = 60
_OF_THE_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length", "server", "date")


@contextmanager
def prefix_proxy(url: str) -> Iterator[str]:
    """Serve the service at *url* under `PREFIX` of another port; nothing but what is under it is answered."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urllib.parse.urlsplit(url).netloc))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _PATIENCE_SECONDS

        def do_GET(self) -> None:
            if self.path.startswith(f"{PREFIX}/"):
                self._pass_on()
            else:
                self._answer(404, [], b"nothing here")

        do_POST = do_GET

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
            headers |= {"X-Forwarded-Prefix": PREFIX, "X-Forwarded-Host": self.headers["Host"]}
            connection = http.client.HTTPConnection(upstream, timeout=_PATIENCE_SECONDS)
            try:
                connection.request(self.command, self.path.removeprefix(PREFIX), body or None, headers)
                response = connection.getresponse()
                self._answer(response.status, response.getheaders(), response.read())
            finally:
                connection.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
