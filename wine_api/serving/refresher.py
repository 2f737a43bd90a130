"""When to look at the store, and when at what the other workers of the host agreed on."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from wine_api.errors import ModelStoreUnavailable, WineError
from wine_api.serving.fleet import Fleet, Stamp
from wine_api.serving.rollout import NotHandedOver, Rollout

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.05
_REPORT_SECONDS = 1.0
_PROBE_SECONDS = 60.0  # so that /health knows of an outage long before the next look for a model
# While the store is away it gets at most two calls a minute from a host: a look that fails is two, and a model that is
# shown but not handed over up to five.
_AWAY_PROBES = 1
_NOT_HANDED_OVER_PROBES = 3
_FIRST_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 3.0  # without any model nothing can be answered, so there is no reason to wait longer


class Refresher:
    """Keeps this worker on the model that the host agreed on, and the host on the model that the store has.

    Every worker watches what the host agreed on. One of them, the lookout, also looks at the store, every
    *ttl_seconds* for a new model; 0 never looks. Each has a thread: the store may take its time, a rollback may not.
    """

    def __init__(self, rollout: Rollout, fleet: Fleet, ttl_seconds: float) -> None:
        self._rollout = rollout
        self._fleet = fleet
        self._ttl_seconds = ttl_seconds
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Take the first model, as long as that may take, then keep watching. Never raises."""
        try:
            self._rollout.take_first()
        except Exception:
            logger.exception("first load failed", extra={"event": "model failed"})
        duties = {
            "model-watcher": _Watcher(self._rollout, self._fleet).watch,
            "store-lookout": _Lookout(self._rollout, self._fleet, self._ttl_seconds).look_if_due,
        }
        self._threads = [
            threading.Thread(target=self._repeat, args=(duty,), name=name, daemon=True) for name, duty in duties.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, duty: Callable[[], None]) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            try:
                duty()
            except Exception:
                # Whatever it was, this worker goes on watching: else it would keep its model for ever.
                logger.exception("watching failed", extra={"event": "watching failed"})


class _Watcher:
    """Keeps this worker on the model that the host agreed on, and tells the others."""

    def __init__(self, rollout: Rollout, fleet: Fleet) -> None:
        self._rollout = rollout
        self._fleet = fleet
        self._stamp: Stamp | None = None
        self._coming_stamp = fleet.coming_stamp()
        self._retries = _Retries()
        self._next_report = time.monotonic()

    def watch(self) -> None:
        if (now := self._fleet.target_stamp()) != self._stamp:
            self._stamp = now
            self._rollout.follow()
        elif (coming := self._fleet.coming_stamp()) != self._coming_stamp:
            self._coming_stamp = coming
            self._rollout.prepare()
        elif self._rollout.is_behind and self._retries.due():
            self._retries.tried()
            self._rollout.follow()
        if time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + _REPORT_SECONDS
            self._rollout.report()


class _Lookout:
    """Looks at the store for the whole host, if this worker is the one that does."""

    def __init__(self, rollout: Rollout, fleet: Fleet, ttl_seconds: float) -> None:
        self._rollout = rollout
        self._fleet = fleet
        self._schedule = _Schedule(ttl_seconds)
        self._retries = _Retries()
        if fleet.store().reachable is False:
            self._schedule.found_away(_AWAY_PROBES)

    def look_if_due(self) -> None:
        missing = self._fleet.target_stamp() is None
        due = self._retries.due() if missing else self._schedule.look_due()
        if due and self._fleet.take_lookout():
            self._retries.tried()
            self._look(refresh=missing or self._schedule.refresh_due())

    def _look(self, *, refresh: bool) -> None:
        try:
            self._rollout.poll(refresh=refresh)
        except NotHandedOver:
            self._schedule.found_away(_NOT_HANDED_OVER_PROBES)
        except ModelStoreUnavailable:
            self._schedule.found_away(_AWAY_PROBES)
        except WineError:
            self._schedule.looked()  # the store answered; why there is nothing to take is in the log
        else:
            self._schedule.looked()


class _Retries:
    """When to try again what must succeed at last: full jitter up to a limit that doubles."""

    def __init__(self) -> None:
        self._limit = _FIRST_RETRY_SECONDS
        self._next = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def tried(self) -> None:
        self._next = time.monotonic() + random.uniform(0.1, self._limit)  # noqa: S311  # nosec B311  # not a secret
        self._limit = min(2 * self._limit, _MOST_RETRY_SECONDS)


class _Schedule:
    """When the lookout looks; intervals are shortened at random, so that hosts do not act in step.

    A probe tells /health how the store is; a refresh also takes what is new there.
    """

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl = ttl_seconds
        self._probe_seconds = min(_PROBE_SECONDS, ttl_seconds)
        self._next_probe = _in_about(self._probe_seconds)
        self._next_refresh = _in_about(ttl_seconds)

    def look_due(self) -> bool:
        return self._ttl > 0 and time.monotonic() >= min(self._next_probe, self._next_refresh)

    def refresh_due(self) -> bool:
        return self._ttl > 0 and time.monotonic() >= self._next_refresh

    def looked(self) -> None:
        self._next_probe = _in_about(self._probe_seconds)
        if self.refresh_due():
            self._next_refresh = _in_about(self._ttl)

    def found_away(self, probes: int) -> None:
        """Look again after as long as *probes* take; the look for a model is made up for then."""
        self._next_probe = _in_over(probes * self._probe_seconds)
        self._next_refresh = max(self._next_refresh, self._next_probe)


def _in_about(seconds: float) -> float:
    return time.monotonic() + seconds * random.uniform(0.85, 1.0)  # noqa: S311  # nosec B311  # spreads load, not a secret


def _in_over(seconds: float) -> float:
    return time.monotonic() + seconds * random.uniform(1.0, 1.15)  # noqa: S311  # nosec B311  # as above
