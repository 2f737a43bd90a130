"""Headers that keep browsers safe."""

from __future__ import annotations

from flask import Flask, Response

# What answers with JSON needs nothing of a browser; pages set a policy of their own.
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


def init_app(app: Flask) -> None:
    """Add the headers to every answer of *app*."""

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers.setdefault("Content-Security-Policy", _NOTHING)
        return response
