"""OpenTelemetry traces, if the operator wants them: each request, what it consists of, and each load of a model.

OpenTelemetry is imported by a worker that sends traces, and by nothing else. Its own variables (`OTEL_…`) say where
they go, how many are kept and what the service is called.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from wine_api import __version__
from wine_api.spans import Attributes, RequestSpan, Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_SERVICE_NAME = "wine-api"
_GOODBYE_SECONDS = 3.0  # a collector that is away must not hold up a worker that ends


def are_possible() -> bool:
    """Whether the extra `otel` is installed."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


def begin(spans: Spans) -> None:
    """Send the spans of this process from now on. After the fork: the thread that sends them does not survive one."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource({"service.name": _SERVICE_NAME, "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    atexit.register(_end, provider)
    spans.tracer = _Tracer(provider)


def _end(provider: TracerProvider) -> None:
    ending = threading.Thread(target=provider.shutdown, daemon=True)
    ending.start()
    ending.join(_GOODBYE_SECONDS)


class _Tracer:
    """Begins spans of OpenTelemetry."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("wine_api", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin_request(self, environ: Mapping[str, Any]) -> RequestSpan:
        """Begin the span of a request; its caller's `traceparent` says which trace it is a part of."""
        from opentelemetry.trace import SpanKind

        sent = {
            name: environ[variable]
            for name, variable in (("traceparent", "HTTP_TRACEPARENT"), ("tracestate", "HTTP_TRACESTATE"))
            if variable in environ
        }
        # What a caller sends and is not valid is as good as nothing sent.
        span = self._tracer.start_span("request", self._propagator.extract(sent), SpanKind.SERVER)
        return _RequestSpan(span)

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Be a part of the span around this one."""
        with self._tracer.start_as_current_span(name, attributes=dict(attributes)):
            yield


class _RequestSpan:
    """The span of a request, current in its thread until it ends."""

    def __init__(self, span: Any) -> None:
        from opentelemetry import context, trace

        self._span = span
        self._token = context.attach(trace.set_span_in_context(span))
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    def end(self, name: str, status: int, attributes: Mapping[str, Any]) -> None:
        """End it: the request was *name*, and was answered with *status*."""
        from opentelemetry import context
        from opentelemetry.trace import StatusCode

        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
        context.detach(self._token)
