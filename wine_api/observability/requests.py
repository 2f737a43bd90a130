"""The life of one request: its id, its clock, its log line, and an answer even if the application fails."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wine_api.metrics import Metrics, number_of
from wine_api.observability.lines import request_of_thread
from wine_api.observability.request_log import RequestLog
from wine_api.observability.request_metrics import RequestMetrics
from wine_api.response_times import ResponseTimes
from wine_api.serving.predictions import Predicted
from wine_api.spans import RequestSpan, Spans

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID_HEADER = "X-Request-ID"
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_LONGEST_PATH = 300
_ENVIRON_KEY = "wine_api.request"

# Another method is seen as this one: a label of a metric must not be what a caller makes up.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_UNKNOWN_METHOD = "OTHER"


@dataclass(slots=True)
class ObservedRequest:
    """What is known of a request by the time it has been answered. The later fields are filled in on the way.

    *counted_method* is *method*, or `OTHER`. *predicted* is what the model answered, and *span* its span if traced.
    """

    request_id: str
    method: str
    path: str
    client: str
    started: float
    counted_method: str = _UNKNOWN_METHOD
    status: int = 500
    route: str | None = None
    outcome: str | None = None
    caller: str | None = None  # whose key or token it was: the guard notes it here
    predicted: Predicted | None = None
    span: RequestSpan | None = None

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self.started

    @property
    def trace_id(self) -> str | None:
        """The trace that it belongs to."""
        return None if self.span is None else self.span.trace_id


def observed(environ: WSGIEnvironment) -> ObservedRequest:
    """Return the observed request that *environ* belongs to."""
    return environ[_ENVIRON_KEY]


class RequestObserver:
    """WSGI middleware around the whole application."""

    def __init__(
        self,
        application: WSGIApplication,
        metrics: Metrics,
        response_times: ResponseTimes,
        spans: Spans | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self._application = application
        self._in_flight = number_of(metrics.requests_in_flight)
        self._metrics = RequestMetrics(metrics)
        self._response_times = response_times
        self._spans = spans or Spans()
        self._log = log or RequestLog()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request with the application."""
        request = _begin(environ)
        if self._spans.tracer is not None:
            request.span = self._spans.tracer.begin_request(environ)
        token = request_of_thread.set(_said_of(request))
        self._in_flight.inc(1)

        def start_observed_response(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None = None,
        ) -> Any:
            request.status = int(status[:3])
            request.route = request.route or _route(environ)
            # Now, not at the end: who has the answer and asks for the metrics finds it counted.
            request.outcome = self._metrics.count(
                request.counted_method, request.route, request.status, request.seconds
            )
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request.request_id)], exc_info)

        try:
            body = self._application(environ, start_observed_response)
        except BaseException:
            # Gunicorn answers with 500, if there is anybody left to answer.
            self._metrics.count(request.counted_method, _route(environ), 500, request.seconds)
            self._metrics.count_exception(request.counted_method)
            self._end(request, token)
            raise
        return _ObservedBody(body, lambda: self._end(request, token))

    def _end(self, request: ObservedRequest, token: Token[Mapping[str, str]]) -> None:
        self._in_flight.inc(-1)
        self._response_times.record(request.seconds)
        self._log.write(request)
        if request.span is not None:
            _end_span(request.span, request)
        request_of_thread.reset(token)


class _ObservedBody:
    """The body of an answer, whose end is heard of. Werkzeug's `ClosingIterator` hands over each part by itself."""

    __slots__ = ("_body", "_end")

    def __init__(self, body: Iterable[bytes], end: Callable[[], None]) -> None:
        self._body = body
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """End the request, once the server has sent the answer, or given up."""
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._end()


def _said_of(request: ObservedRequest) -> dict[str, str]:
    """Return what every line says that is written while *request* is answered."""
    if request.span is None:
        return {"request_id": request.request_id}
    return {"request_id": request.request_id, "trace_id": request.span.trace_id}


def _end_span(span: RequestSpan, request: ObservedRequest) -> None:
    predicted = request.predicted
    attributes = {
        "http.request.method": request.method,
        "http.route": request.route,
        "http.response.status_code": request.status,
        "url.path": request.path,
        "client.address": request.client,
        "wine.request_id": request.request_id,
        "wine.outcome": request.outcome,
        "wine.model.version": None if predicted is None else predicted.model.version,
        "wine.rows": None if predicted is None else len(predicted.answers.labels),
    }
    name = f"{request.counted_method} {request.route or ''}".strip()
    span.end(name, request.status, {key: value for key, value in attributes.items() if value is not None})


def _route(environ: WSGIEnvironment) -> str | None:
    # Werkzeug leaves its request here, which is spared a hook that Flask would call at every request.
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    return None if rule is None else rule.rule


def _begin(environ: WSGIEnvironment) -> ObservedRequest:
    method = environ["REQUEST_METHOD"]
    counted_method = method if method in _METHODS else _UNKNOWN_METHOD
    environ["REQUEST_METHOD"] = counted_method
    request = ObservedRequest(
        request_id=valid_request_id(environ.get("HTTP_X_REQUEST_ID")),
        method=method,
        path=_path(environ),
        client=environ.get("REMOTE_ADDR", ""),
        started=time.perf_counter(),
        counted_method=counted_method,
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
