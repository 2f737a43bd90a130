"""The life of one request: its id, its clock, its log line, and an answer even if the application fails."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from wine_api.metrics import Metrics
from wine_api.observability.logs import request_id_of_thread
from wine_api.response_times import ResponseTimes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("wine_api.access")

REQUEST_ID_HEADER = "X-Request-ID"
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_LONGEST_PATH = 300
_ENVIRON_KEY = "wine_api.request"
CALLER = "wine_api.caller"  # in the environ: whose key or token it was, if the guard knows

# Another method is seen as this one: a label of a metric must not be what a caller makes up.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_UNKNOWN_METHOD = "OTHER"


@dataclass(slots=True)
class ObservedRequest:
    """What is known of a request by the time it has been answered. The later fields are filled in on the way."""

    request_id: str
    method: str
    path: str
    client: str
    started: float
    status: int = 500
    route: str | None = None
    model_version: str | None = None
    rows: int | None = None
    outcome: str | None = None
    caller: str | None = None

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self.started


def observed(environ: WSGIEnvironment) -> ObservedRequest:
    """Return the observed request that *environ* belongs to."""
    return environ[_ENVIRON_KEY]


def log_request(request: ObservedRequest) -> None:
    """Write the one line of *request*."""
    fields: dict[str, Any] = {
        "request_id": request.request_id,
        "method": request.method,
        "route": request.route,
        "path": request.path,
        "status": request.status,
        "duration_ms": round(1000 * request.seconds, 3),
        "client": request.client,
    }
    if request.caller is not None:
        fields["caller"] = request.caller
    if request.outcome is not None:
        fields |= {"outcome": request.outcome, "model_version": request.model_version, "rows": request.rows}
    logger.info("request", extra=fields)


class RequestObserver:
    """WSGI middleware around the whole application."""

    def __init__(self, application: WSGIApplication, metrics: Metrics, response_times: ResponseTimes) -> None:
        self._application = application
        self._metrics = metrics
        self._response_times = response_times

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request with the application."""
        request = _begin(environ)
        token = request_id_of_thread.set(request.request_id)
        self._metrics.requests_in_flight.inc()

        def start_observed_response(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None = None,
        ) -> Any:
            request.status = int(status[:3])
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request.request_id)], exc_info)

        try:
            body = self._application(environ, start_observed_response)
        except BaseException:
            self._end(request, token)
            raise
        return ClosingIterator(body, lambda: self._end(request, token))

    def _end(self, request: ObservedRequest, token: Token[str | None]) -> None:
        self._metrics.requests_in_flight.dec()
        self._response_times.record(request.seconds)
        log_request(request)
        request_id_of_thread.reset(token)


def _begin(environ: WSGIEnvironment) -> ObservedRequest:
    method = environ["REQUEST_METHOD"]
    if method not in _METHODS:
        environ["REQUEST_METHOD"] = _UNKNOWN_METHOD
    request = ObservedRequest(
        request_id=valid_request_id(environ.get("HTTP_X_REQUEST_ID")),
        method=method,
        path=_path(environ),
        client=environ.get("REMOTE_ADDR", ""),
        started=time.perf_counter(),
    )
    environ[_ENVIRON_KEY] = request
    return request


def valid_request_id(offered: str | None) -> str:
    """Return the caller's request id if it is one that cannot forge a log line or a header, else a new one."""
    if offered is not None and _VALID_REQUEST_ID.fullmatch(offered):
        return offered
    return uuid.uuid4().hex


def _path(environ: WSGIEnvironment) -> str:
    # WSGI hands over the bytes of the path as Latin-1; people wrote UTF-8.
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return shortened(path.encode("latin-1", "replace").decode("utf-8", "replace"))


def shortened(path: str) -> str:
    """Return as much of *path* as a log line has room for, even if each character must be escaped."""
    return path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + "…"
