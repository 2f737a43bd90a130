"""When to look at the store, and how a model that is found there comes into every worker of this host."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wine_api.errors import (
    ModelRejected,
    ModelStoreUnavailable,
    ModelVersionNotFound,
    WineError,
    WorkersNotConverged,
)
from wine_api.metrics import Metrics
from wine_api.response_times import ResponseTimes
from wine_api.serving.artifact import Artifact
from wine_api.serving.cache import ModelCache
from wine_api.serving.fleet import Fleet, StoreStatus, Target, WorkerStatus, own_status
from wine_api.serving.holder import LoadedModel, ModelHolder
from wine_api.serving.loading import ModelLoader
from wine_api.serving.stores.base import ModelStore, StoredModel

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.1
_REPORT_SECONDS = 1.0
_PROBE_SECONDS = 60.0  # so that /health knows of an outage long before the next look for a model
_FIRST_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 5.0  # without any model nothing can be answered, so there is no reason to wait longer
_CONVERGENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did: the model that every worker now has, and whether it was another one before."""

    outcome: Literal["loaded", "unchanged"]
    model: LoadedModel
    generation: int
    workers: list[WorkerStatus]


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """How often to look at the store, how long a load may take, and how large a model may be."""

    ttl_seconds: float
    load_timeout_seconds: float
    max_bytes: int


class Refresher:
    """Keeps this worker on the model that the host agreed on, and the host on the model that the store has."""

    def __init__(
        self,
        store: ModelStore,
        cache: ModelCache,
        fleet: Fleet,
        holder: ModelHolder,
        loader: ModelLoader,
        metrics: Metrics,
        response_times: ResponseTimes,
        policy: RefreshPolicy,
    ) -> None:
        self._store = store
        self._cache = cache
        self._fleet = fleet
        self._holder = holder
        self._loader = loader
        self._metrics = metrics
        self._response_times = response_times
        self._policy = policy
        self._generation = 0
        self._error: str | None = None
        self._refused: str | None = None  # the identity of what a gate refused: not fetched again until it changes
        self._swapping = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    # The life of a worker

    def start(self) -> None:
        """Load the first model, as long as that may take, then keep watching. Never raises."""
        try:
            self._load_first()
        except Exception:
            logger.exception("first load failed", extra={"event": "model failed"})
        self._report()
        self._watcher = threading.Thread(target=self._watch, name="model-watcher", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()

    def _load_first(self) -> None:
        began = time.time()
        deadline = time.monotonic() + self._policy.load_timeout_seconds
        # The first worker looks at the store for all; the others wait here and then take what it found.
        with self._fleet.changing(deadline) as changing:
            if changing and self._fleet.target() is None and not self._found_away_since(began):
                self._take_first(deadline)
        self._follow_target()

    def _found_away_since(self, moment: float) -> bool:
        status = self._fleet.store()
        return status.reachable is False and (status.checked_at or 0.0) >= moment

    def _take_first(self, deadline: float) -> None:
        """Take the store's model, else the one that this host served last."""
        try:
            self._take(self._look(), deadline)
        except WineError as error:
            _log_failure("no model from the store", error)
            last = self._cache.last_in_use()
            if last is not None:
                self._bring_into_use(last, stale=True)

    # Watching

    def _watch(self) -> None:
        schedule = _Schedule(self._policy.ttl_seconds)
        stamp = None
        while not self._stopping.wait(_WATCH_SECONDS):
            try:
                if (now := self._fleet.target_stamp()) != stamp:
                    stamp = now
                    self._follow_target()
                if schedule.report_due():
                    self._report()
                self._look_if_due(schedule)
            except Exception:
                logger.exception("watching failed", extra={"event": "watching failed"})

    def _look_if_due(self, schedule: _Schedule) -> None:
        missing = self._fleet.target() is None if self._holder.current() is None else False
        if not schedule.look_due(missing) or not self._fleet.take_lookout():
            return
        found = self._try(missing or schedule.refresh_due())
        schedule.looked(found)

    def _try(self, refresh: bool) -> bool:
        """Look at the store, and take its model if *refresh* says so; return whether the store answered."""
        deadline = time.monotonic() + self._policy.load_timeout_seconds
        try:
            with self._fleet.changing(deadline) as changing:
                if changing:
                    self._refresh_or_confirm(refresh, deadline)
        except ModelStoreUnavailable:
            return False
        except WineError as error:
            _log_failure("no new model taken", error)
        return True

    def _refresh_or_confirm(self, refresh: bool, deadline: float) -> None:
        found, target = self._look(), self._fleet.target()
        if target is not None and found.identity == target.identity:
            self._fleet.confirm(target, found.identity)
        elif (refresh or target is None or target.stale) and found.identity != self._refused:
            self._take(found, deadline)

    def _follow_target(self) -> None:
        """Take the model that the host agreed on, if this worker has not got it."""
        target = self._fleet.target()
        if target is None or target.generation <= self._generation:
            return
        try:
            artifact = self._cache.find(target.digest) or self._fetch_again(target)
            self._swap(self._loader.load(artifact), target)
        except WineError as error:
            self._error = error.code
            _log_failure("target not taken", error, version=target.version, generation=target.generation)
        self._report()

    def _fetch_again(self, target: Target) -> Artifact:
        """Fetch a model that the cache lost, as exactly what the host agreed on."""
        artifact = self._fetch(self._store.find(target.version), time.monotonic() + self._policy.load_timeout_seconds)
        if artifact.digest != target.digest:
            raise ModelVersionNotFound("The store no longer holds the model that this host agreed on.")
        return artifact

    # Reloading

    def reload(self, version: str | None = None) -> Reloaded:
        """Bring *version*, or what is under `MODEL_KEY`, into every worker of this host, and return when it is there.

        The old model answers until the new one has passed every gate, and stays if it does not. Raises
        `ModelVersionNotFound`, `ModelRejected`, `ModelStoreUnavailable` or `WorkersNotConverged`.
        """
        deadline = time.monotonic() + self._policy.load_timeout_seconds
        with self._fleet.changing(deadline) as changing:
            if not changing:
                raise WorkersNotConverged("Another reload is still under way.")
            before = self._fleet.target()
            found = self._look() if version is None else self._store.find(version)
            target = self._take(found, deadline)
        workers = self._fleet.wait_until_converged(target.generation, time.monotonic() + _CONVERGENCE_SECONDS)
        behind = [worker for worker in workers if worker.generation < target.generation]
        if behind:
            raise WorkersNotConverged(
                f"{len(behind)} of {len(workers)} workers did not take the model in time.",
                members={"workers": [describe_worker(worker, target.generation) for worker in workers]},
            )
        unchanged = before is not None and before.generation == target.generation
        return Reloaded("unchanged" if unchanged else "loaded", self._holder.require(), target.generation, workers)

    def _take(self, found: StoredModel, deadline: float) -> Target:
        """Make *found* the host's model, unless it is. Only inside `changing`."""
        target = self._fleet.target()
        if target is not None and found.identity == target.identity:
            self._metrics.model_reloads.labels("unchanged", "").inc()
            self._follow_target()
            return self._fleet.confirm(target, found.identity)
        try:
            return self._bring_into_use(self._fetch(found, deadline))
        except (ModelRejected, ModelStoreUnavailable) as error:
            outcome = "failed"
            if isinstance(error, ModelRejected):
                outcome, self._refused = "refused", found.identity
            self._metrics.model_reloads.labels(outcome, error.reason).inc()
            raise

    def _bring_into_use(self, artifact: Artifact, *, stale: bool = False) -> Target:
        # Loaded here first: a model that does not pass raises, and nothing has changed.
        model = self._loader.load(artifact)
        target = self._fleet.publish(artifact.digest, artifact.version, artifact.identity, stale=stale)
        self._swap(model, target)
        self._cache.remember_in_use(artifact.digest)
        self._metrics.model_reloads.labels("loaded", "stale" if stale else "").inc()
        self._report()
        return target

    def _swap(self, model: LoadedModel, target: Target) -> None:
        with self._swapping:
            if target.generation <= self._generation:
                return
            self._holder.swap(model)
            self._generation = target.generation
            self._error = None
        logger.info(
            "model loaded",
            extra={
                "event": "model loaded",
                "version": target.version,
                "digest": target.digest,
                "generation": target.generation,
            },
        )

    # Store and fleet

    def _look(self) -> StoredModel:
        """Look at what the store has, and let the whole host know whether it answered."""
        started = time.perf_counter()
        error: str | None = None
        reachable = True
        try:
            return self._store.latest()
        except ModelStoreUnavailable as unavailable:
            error, reachable = unavailable.reason, False
            raise
        except ModelVersionNotFound:
            error = "model_not_found"
            raise
        finally:
            latency = round(1000 * (time.perf_counter() - started), 3)
            self._fleet.report_store(StoreStatus(self._store.kind, reachable, time.time(), latency, error))

    def _fetch(self, found: StoredModel, deadline: float) -> Artifact:
        return self._cache.fetch(self._store, found, max_bytes=self._policy.max_bytes, deadline=deadline)

    def _report(self) -> None:
        model = self._holder.current()
        in_use = (
            {}
            if model is None
            else {
                "generation": self._generation,
                "version": model.version,
                "digest": model.digest,
                "engine": model.engine.name,
                "loaded_at": model.loaded_at.timestamp(),
            }
        )
        status = own_status(self._fleet.slot, **in_use, error=self._error, response_times=self._response_times.counts())
        self._fleet.report(status)


class _Schedule:
    """When the watcher does what; intervals are shortened at random, so that hosts do not act in step."""

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl = ttl_seconds
        self._retry = _FIRST_RETRY_SECONDS
        now = time.monotonic()
        self._next_report = now
        self._next_retry = now + _FIRST_RETRY_SECONDS
        self._next_probe = now + _jittered(_PROBE_SECONDS)
        self._next_refresh = now + _jittered(ttl_seconds)

    def report_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_report:
            return False
        self._next_report = now + _REPORT_SECONDS
        return True

    def look_due(self, missing: bool) -> bool:
        now = time.monotonic()
        if missing:
            return now >= self._next_retry
        return self._ttl > 0 and now >= min(self._next_probe, self._next_refresh)

    def refresh_due(self) -> bool:
        return self._ttl > 0 and time.monotonic() >= self._next_refresh

    def looked(self, answered: bool) -> None:
        now = time.monotonic()
        self._next_retry = now + random.uniform(0.1, self._retry)  # noqa: S311  # full jitter, not a secret
        self._retry = min(2 * self._retry, _MOST_RETRY_SECONDS)
        self._next_probe = now + _jittered(_PROBE_SECONDS)
        # While the store is away, each probe is also the look for a model.
        self._next_refresh = now + _jittered(self._ttl if answered else _PROBE_SECONDS)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311  # spreads load, not a secret


def describe_worker(worker: WorkerStatus, generation: int) -> Mapping[str, object]:
    """Say of one worker whether it has *generation*, as `POST /model/reload` and `GET /model` show it."""
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "version": worker.version,
        "generation": worker.generation,
        "converged": worker.generation >= generation > 0,
        "error": worker.error,
    }


def _log_failure(message: str, error: WineError, **fields: object) -> None:
    reason = getattr(error, "reason", error.code)
    extra = {"event": "model refused" if isinstance(error, ModelRejected) else "model failed", "reason": reason}
    logger.warning(message, extra={**extra, "detail": error.detail, **fields})
