"""Until when a request is worth answering."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from wine_api.errors import DeadlineExceeded, Fault, InvalidRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

HEADER = "X-Request-Deadline-Ms"
_ENVIRON_HEADER = "HTTP_X_REQUEST_DEADLINE_MS"
_LONGEST_MS = 86_400_000

# When the request of this thread arrived (`time.monotonic()`): the worker knows, and the wait for a thread counts too.
arrived_at: ContextVar[float | None] = ContextVar("arrived_at", default=None)


def deadline_of(environ: WSGIEnvironment, default_seconds: float) -> float | None:
    """Return when (`time.monotonic()`) the request in *environ* is no longer worth answering; None is never.

    Callers may ask for less than *default_seconds*, not for more; 0 of those is no limit. Raises `InvalidRequest`.
    """
    asked = environ.get(_ENVIRON_HEADER)
    if asked is not None:
        seconds = min(_seconds(asked), default_seconds or _LONGEST_MS)
    elif default_seconds:
        seconds = default_seconds
    else:
        return None
    arrived = arrived_at.get()
    return (time.monotonic() if arrived is None else arrived) + seconds


def _seconds(asked: str) -> float:
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and int(asked) <= _LONGEST_MS):
        detail = f"{HEADER} takes whole milliseconds, from 0 to {_LONGEST_MS}."
        raise InvalidRequest("The request has 1 problem.", [Fault("", "invalid_parameter", detail)])
    return int(asked) / 1000


def refuse_if_over(deadline: float | None) -> None:
    """Raise `DeadlineExceeded` if *deadline* has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineExceeded("The deadline passed before the model was asked, so it was not.", retry_after=1)
