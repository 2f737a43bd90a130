"""Which web pages of other origins may call the API from a browser.

By hand, as this is all that is needed: exact origins, no cookies. A library brings patterns and per-route options.
"""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, request

from wine_api.security.deadline import HEADER as DEADLINE_HEADER

_METHODS = "GET, HEAD, POST"
_REQUEST_HEADERS = f"Authorization, Content-Type, X-API-Key, X-Request-ID, {DEADLINE_HEADER}"
_ANSWER_HEADERS = "RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
_PREFLIGHT_SECONDS = "600"  # for which a browser may remember the answer


def headers_for(origins: Collection[str], origin: str | None) -> dict[str, str]:
    """Return the headers that let a page of *origin* read an answer, if it is one of *origins*."""
    if origin is None or origin not in origins:
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _ANSWER_HEADERS}


def init_app(app: Flask, origins: Collection[str]) -> None:
    """Let pages of *origins* call *app*. Must come before anything asks for credentials: a preflight has none."""
    if not origins:
        return

    @app.before_request
    def answer_preflight() -> Response | None:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_preflight or request.headers.get("Origin") not in origins:
            return None
        answer = Response(status=204)
        answer.headers["Access-Control-Allow-Methods"] = _METHODS
        answer.headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS
        answer.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
        return answer

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(headers_for(origins, request.headers.get("Origin")))
        return response
