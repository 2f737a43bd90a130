"""Errors as RFC 9457 problem documents: the only place that knows how they look on the wire."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from wine_api.errors import InvalidRequest, WineError
from wine_api.observability.requests import observed
from wine_api.services import get_services

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:wine-api:error:"

# What Flask and Werkzeug raise by themselves, in our words: code and detail by status.
_HTTP_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request could not be understood."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take this method."),
    413: ("body_too_large", "The request body is too large."),
    415: ("unsupported_media_type", "Send the body as application/json in UTF-8."),
}


def init_app(app: Flask) -> None:
    """Answer every error of *app* with a problem document."""
    app.register_error_handler(WineError, _on_wine_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_unexpected_error)


def problem_document(
    status: int, code: str, title: str, detail: str, request_id: str, members: Mapping[str, Any] | None = None
) -> bytes:
    """Write a problem document."""
    document = {
        "type": _TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **(members or {}),
    }
    return orjson.dumps(document)


def _on_wine_error(error: WineError) -> Response:
    members = dict(error.members)
    if isinstance(error, InvalidRequest):
        members["errors"] = [asdict(fault) for fault in error.faults]
    response = _problem(error.status, error.code, error.title, error.detail, members)
    response.headers.update(error.headers)
    return response


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect
        return Response(error.get_body(), status, error.get_headers())
    code, detail = _HTTP_ERRORS.get(status, ("http_error", "The request could not be answered."))
    response = _problem(status, code, error.name, detail)
    # Allow and the like belong to the answer; the type and length of Werkzeug's own page do not.
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _on_unexpected_error(error: Exception) -> Response:
    logger.error("unexpected error", exc_info=error)
    return _problem(500, WineError.code, WineError.title, "Something went wrong here. The log has the details.")


def _problem(status: int, code: str, title: str, detail: str, members: Mapping[str, Any] | None = None) -> Response:
    get_services().metrics.errors.labels(code).inc()
    seen = observed(request.environ)
    traced = {} if seen.trace_id is None else {"trace_id": seen.trace_id}
    body = problem_document(status, code, title, detail, seen.request_id, {**traced, **(members or {})})
    return Response(body, status, content_type=PROBLEM_MEDIA_TYPE)
