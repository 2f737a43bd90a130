"""What a caller needs before a route answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What an API key or a token can allow. One does not imply another."""

    PREDICT = "predict"
    MODEL_READ = "model:read"
    MODEL_WRITE = "model:write"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Access:
    """The conditions of one route.

    Without a *scope* it answers anyone. What is not *limited* is not counted by the rate limits.
    """

    scope: Scope | None = None
    limited: bool = True


ANYONE = Access()
# For who starts and stops the service: never asked for a key, never limited.
PROBE = Access(limited=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as far as it is known.

    *name* is for the log, and *counted_as* for the rate limits. None of them ever holds a key or a token.
    """

    name: str | None
    counted_as: str
    scopes: frozenset[Scope]
