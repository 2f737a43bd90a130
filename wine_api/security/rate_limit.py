"""How much a caller may use: requests, and wines predicted."""

from __future__ import annotations

import hashlib
import logging
import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from wine_api.config import InvalidSetting, Rate, Settings
from wine_api.errors import RateLimited
from wine_api.metrics import Metrics
from wine_api.security.counters import Count, Counters, FallbackCounters, HostCounters, Name, RedisCounters

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger(__name__)

COUNTERS_FILE = "limits"  # in STATE_DIR


STANDING = "wine_api.rate_limit"  # in the environ: what the RateLimit header of the answer will say


class RateLimits:
    """The limits of every caller; each can be off."""

    def __init__(self, requests: Rate | None, rows: Rate | None, counters: Counters, metrics: Metrics) -> None:
        self._requests = requests
        self._rows = rows
        self._counters = counters
        self._metrics = metrics
        # As in draft-ietf-httpapi-ratelimit-headers: the quota and its window, written once.
        named = (("requests", requests), ("rows", rows))
        self.policy = ", ".join(f'"{name}";q={rate.amount};w={rate.seconds}' for name, rate in named if rate)

    def take_request(self, counted_as: str, environ: WSGIEnvironment) -> None:
        """Count a request of a caller, and note in *environ* how it stands. Raises `RateLimited`."""
        if self._requests is None:
            return
        count = self._take("requests", counted_as, 1, self._requests)
        environ[STANDING] = _item("requests", self._requests, count)
        if not count.taken:
            raise RateLimited(
                f"At most {self._requests.amount} requests {_in_words(self._requests)} are answered.",
                "requests",
                retry_after=_rounded_up(count.seconds_left),
            )

    def take_rows(self, counted_as: str, rows: int, environ: WSGIEnvironment) -> None:
        """Count wines that a caller wants to have predicted: all of them or, if that is too many, none.

        Raises `RateLimited`.
        """
        if self._rows is None:
            return
        count = self._take("rows", counted_as, rows, self._rows)
        item, before = _item("rows", self._rows, count), environ.get(STANDING)
        environ[STANDING] = f"{before}, {item}" if before else item
        if not count.taken:
            left = max(0, self._rows.amount - count.used)
            raise RateLimited(
                f"At most {self._rows.amount} wines {_in_words(self._rows)} are predicted; "
                f"this request has {rows}, and {left} are left.",
                "rows",
                retry_after=_rounded_up(count.seconds_left),
            )

    def _take(self, limit: str, counted_as: str, cost: int, rate: Rate) -> Count:
        try:
            return self._counters.take(_name(limit, counted_as), cost, rate)
        except OSError as error:
            # Answering matters more than counting: load shedding still protects the service.
            self._metrics.rate_limit_fallbacks.inc()
            logger.error("a request was not counted", extra={"reason": str(error)})
            return Count(True, cost, rate.seconds)


def build_rate_limits(settings: Settings, metrics: Metrics) -> RateLimits | None:
    """Return the limits that *settings* want, or None for none. Raises `InvalidSetting`."""
    if settings.rate_limit is None and settings.rate_limit_rows is None:
        return None
    counters: Counters = HostCounters(settings.state_folder / COUNTERS_FILE)
    shared = build_shared_counters(settings)
    if shared is not None:
        counters = FallbackCounters(shared, counters, metrics)
    return RateLimits(settings.rate_limit, settings.rate_limit_rows, counters, metrics)


def build_shared_counters(settings: Settings) -> Counters | None:
    """Return what counts for several hosts, or None where each counts for itself. Raises `InvalidSetting`."""
    if settings.rate_limit_storage is None:
        return None
    try:
        return RedisCounters(settings.rate_limit_storage)
    except Exception:  # of many kinds, and their words may show a password
        raise InvalidSetting("RATE_LIMIT_STORAGE must be a URL with no options but those of redis-py") from None


@lru_cache(maxsize=4096)
def _name(limit: str, counted_as: str) -> Name:
    # JSON can name a caller with half of a character, which is no text to any other encoder.
    digest = hashlib.blake2b(f"{limit} {counted_as}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first, second = struct.unpack("qq", digest)
    return first or 1, second  # a first of 0 is what an unused slot has


def _item(name: str, rate: Rate, count: Count) -> str:
    return f'"{name}";r={max(0, rate.amount - count.used)};t={_rounded_up(count.seconds_left)}'


def _rounded_up(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _in_words(rate: Rate) -> str:
    return {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}.get(rate.seconds, f"in {rate.seconds} s")
