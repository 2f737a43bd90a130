"""When to look at the store, and when at what the other workers of the host agreed on."""

from __future__ import annotations

import logging
import random
import threading
import time

from wine_api.errors import ModelStoreUnavailable, WineError
from wine_api.serving.fleet import Fleet
from wine_api.serving.rollout import Rollout

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.1
_REPORT_SECONDS = 1.0
_PROBE_SECONDS = 60.0  # so that /health knows of an outage long before the next look for a model
_FIRST_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 3.0  # without any model nothing can be answered, so there is no reason to wait longer


class Refresher:
    """Keeps this worker on the model that the host agreed on, and the host on the model that the store has.

    Every worker watches what the host agreed on. One of them, the lookout, also looks at the store, every
    *ttl_seconds* for a new model; 0 never looks.
    """

    def __init__(self, rollout: Rollout, fleet: Fleet, ttl_seconds: float) -> None:
        self._rollout = rollout
        self._fleet = fleet
        self._ttl_seconds = ttl_seconds
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Take the first model, as long as that may take, then keep watching. Never raises."""
        try:
            self._rollout.take_first()
        except Exception:
            logger.exception("first load failed", extra={"event": "model failed"})
        self._watcher = threading.Thread(target=self._watch, name="model-watcher", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        schedule = _Schedule(self._ttl_seconds)
        stamp = None
        while not self._stopping.wait(_WATCH_SECONDS):
            try:
                if (now := self._fleet.target_stamp()) != stamp:
                    stamp = now
                    self._rollout.follow()
                if schedule.report_due():
                    self._rollout.report()
                self._retry_or_look(schedule)
            except Exception:
                # Whatever it was, this worker goes on watching: else it would keep its model for ever.
                logger.exception("watching failed", extra={"event": "watching failed"})

    def _retry_or_look(self, schedule: _Schedule) -> None:
        if self._rollout.is_behind and schedule.retry_due():
            schedule.tried()
            self._rollout.follow()
        missing = self._fleet.target_stamp() is None
        due = schedule.retry_due() if missing else schedule.look_due()
        if due and self._fleet.take_lookout():
            schedule.tried()
            schedule.looked(answered=self._poll(refresh=missing or schedule.refresh_due()))

    def _poll(self, *, refresh: bool) -> bool:
        """Look at the store; return whether it answered."""
        try:
            self._rollout.poll(refresh=refresh)
        except ModelStoreUnavailable:
            return False
        except WineError:
            pass  # the store answered; why there is nothing to take is in the log
        return True


class _Schedule:
    """When the watcher does what; intervals are shortened at random, so that hosts do not act in step."""

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl = ttl_seconds
        self._retry_seconds = _FIRST_RETRY_SECONDS
        now = time.monotonic()
        self._next_report = now
        self._next_retry = now
        self._next_probe = now + _jittered(_PROBE_SECONDS)
        self._next_refresh = now + _jittered(ttl_seconds)

    def report_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_report:
            return False
        self._next_report = now + _REPORT_SECONDS
        return True

    def retry_due(self) -> bool:
        return time.monotonic() >= self._next_retry

    def look_due(self) -> bool:
        return self._ttl > 0 and time.monotonic() >= min(self._next_probe, self._next_refresh)

    def refresh_due(self) -> bool:
        return self._ttl > 0 and time.monotonic() >= self._next_refresh

    def tried(self) -> None:
        """Wait longer before the next retry: full jitter up to a limit that doubles."""
        self._next_retry = time.monotonic() + random.uniform(0.1, self._retry_seconds)  # noqa: S311  # not a secret
        self._retry_seconds = min(2 * self._retry_seconds, _MOST_RETRY_SECONDS)

    def looked(self, *, answered: bool) -> None:
        now = time.monotonic()
        if answered and now >= self._next_refresh:
            self._next_refresh = now + _jittered(self._ttl)
        # While the store is away, the look for a model is made up for at the next probe.
        self._next_probe = now + _jittered(_PROBE_SECONDS)
        if not answered:
            self._next_refresh = max(self._next_refresh, self._next_probe)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311  # spreads load, not a secret
