"""Where traces begin and end, whether or not anybody collects them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

Attributes = Mapping[str, str | int | float]

_NOT_TRACED: AbstractContextManager[None] = nullcontext()


class RequestSpan(Protocol):
    """The span of one request, from its first line to its answer."""

    trace_id: str

    def end(self, name: str, status: int, attributes: Mapping[str, Any]) -> None:
        """End it: the request was *name*, and was answered with *status*."""


class Tracer(Protocol):
    """Sends spans somewhere; `observability/traces.py` has the real one."""

    def begin_request(self, environ: Mapping[str, Any]) -> RequestSpan:
        """Begin the span of a request, as a part of its caller's trace if it says so."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Any]:
        """Return a context that is a part of the span around it; what it raises is noted."""


class Spans:
    """The spans of one process. Nothing is traced, at no cost, before *tracer* is set, which a worker may do."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None

    def span(self, name: str, **attributes: str | int | float) -> AbstractContextManager[Any]:
        """Return a context to do something in that is worth a span."""
        return _NOT_TRACED if self.tracer is None else self.tracer.span(name, attributes)
