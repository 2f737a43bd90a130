"""How a model comes out of the store into every worker of this host: fetched once, vetted, agreed on, swapped."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Literal

from wine_api.errors import (
    ModelQuarantined,
    ModelRejected,
    ModelStoreUnavailable,
    ModelVersionNotFound,
    NoPreviousModel,
    WineError,
    WorkersNotConverged,
)
from wine_api.metrics import Metrics
from wine_api.response_times import ResponseTimes
from wine_api.serving.artifact import Artifact
from wine_api.serving.cache import DISK_REASONS, ModelCache
from wine_api.serving.fleet import SHARED_ERRORS, FinishedReload, Fleet, StoreStatus, Target, WorkerStatus, own_status
from wine_api.serving.holder import LoadedModel, ModelHolder
from wine_api.serving.ledger import Ledger, Quarantined
from wine_api.serving.loading import ModelLoader
from wine_api.serving.stores.base import ModelStore, StoredModel, newest_first

logger = logging.getLogger(__name__)

_CONVERGENCE_SECONDS = 10.0
_START_SECONDS = 3.0  # what the store may cost a start that has a model at hand


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """How long one whole load (fetch and gates) may take, and how large a model may be."""

    seconds: float
    max_bytes: int


class NotHandedOver(ModelStoreUnavailable):
    """The store showed a model and then did not hand it over."""


Outcome = Literal["loaded", "unchanged", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a change did: the model that every worker now has, and whether it was another one before."""

    outcome: Outcome
    target: Target
    workers: list[WorkerStatus]


@dataclass(frozen=True, slots=True)
class Versions:
    """What the store has, newest first, and what this host thinks of it."""

    published: list[StoredModel]
    latest: StoredModel | None
    in_use: LoadedModel | None
    quarantined: list[Quarantined]

    @property
    def all(self) -> list[StoredModel]:
        """The published versions, and what is under `MODEL_KEY` if it is none of them."""
        if self.latest is None or any(self.is_latest(model) for model in self.published):
            return self.published
        return newest_first([*self.published, self.latest])

    def name_of(self, model: StoredModel) -> str:
        """Return what *model* is called; a plain upload that this host serves, by its digest."""
        if model.version is None and self.in_use is not None and self.in_use.identity == model.identity:
            return self.in_use.version
        return model.version or model.identity

    def is_latest(self, model: StoredModel) -> bool:
        """Whether *model* is what lies under `MODEL_KEY`."""
        latest = self.latest
        return latest is not None and (latest.version or latest.identity) == (model.version or model.identity)

    def is_in_use(self, model: StoredModel) -> bool:
        """Whether this host serves *model*."""
        return self.in_use is not None and self.in_use.version == self.name_of(model)

    def quarantine_of(self, model: StoredModel) -> Quarantined | None:
        """Return why *model* is in quarantine, or None if it is not."""
        name = self.name_of(model)
        return next(
            (
                entry
                for entry in reversed(self.quarantined)
                if model.identity == entry.identity or name == entry.version
            ),
            None,
        )


class Rollout:
    """Brings models into this worker, and lets the other workers of the host do the same.

    Whoever brings a model from the store holds `Fleet.fetching`, and `Fleet.changing` only while the host's decision
    changes: a rollback never waits for the store. The old model answers until the new one has passed every gate, and
    stays if it does not.
    """

    def __init__(
        self,
        store: ModelStore,
        cache: ModelCache,
        fleet: Fleet,
        holder: ModelHolder,
        loader: ModelLoader,
        metrics: Metrics,
        response_times: ResponseTimes,
        limits: LoadLimits,
        ledger: Ledger,
    ) -> None:
        self._store = store
        self._cache = cache
        self._ledger = ledger
        self._fleet = fleet
        self._holder = holder
        self._loader = loader
        self._metrics = metrics
        self._response_times = response_times
        self._limits = limits
        self._generation = 0
        self._error: str | None = None
        self._look_ms = 0.0
        self._prepared: LoadedModel | None = None
        # Callers of one worker wait for each other here, so that only one of them asks for the host's lock.
        self._reloading = threading.Lock()
        # Held while this worker takes a target: its watcher must not load what a reload is about to swap in.
        self._taking = threading.Lock()

    # What a worker does by itself

    def take_first(self) -> None:
        """Take the host's model, or find one for the host: the store's, else the one that was in use last.

        The first worker looks for all; the others wait for it.
        """
        began = time.time()
        deadline = self._deadline()
        with self._fleet.fetching(deadline) as fetching:
            if fetching and self._fleet.target() is None and not self._found_away_since(began):
                self._find_first(deadline)
        self.follow()
        # From here on others wait for this worker; what they agreed on before they saw it is taken now.
        self.report()
        self.follow()

    def follow(self) -> None:
        """Take the model that the host agreed on, if this worker has not got it."""
        with self._taking:
            target = self._fleet.target()
            if target is None or target.generation <= self._generation:
                return
            try:
                # The same bytes may have come again since, under another name.
                self._swap(replace(self._prepared_for(target) or self._load(target), version=target.version), target)
            except WineError as error:
                self._error = _reason(error)
                _log_failure("target not taken", error, version=target.version, generation=target.generation)
        self.report()

    def prepare(self) -> None:
        """Load the model that another worker is about to bring to the host, so that all have it at the same time."""
        self._prepared = None
        coming, model = self._fleet.coming(), self._holder.current()
        if coming is None or coming.slot == self._fleet.slot or (model is not None and model.digest == coming.digest):
            return
        artifact = self._cache.find(coming.digest)
        if artifact is not None:
            # If it is refused, whoever brings it says why.
            with contextlib.suppress(WineError):
                self._prepared = self._loader.load(artifact, self._deadline())

    @property
    def is_behind(self) -> bool:
        """Whether the host agreed on a model that this worker has not got."""
        target = self._fleet.target()
        return target is not None and target.generation > self._generation

    def poll(self, *, refresh: bool) -> None:
        """Look at the store for the whole host, and take what is new there, if *refresh* or if nothing better is here.

        Raises what the store raises, and `ModelRejected`.
        """
        deadline = self._deadline()
        with self._fleet.fetching(deadline) as fetching:
            if not fetching:
                return
            found, target = self._look(), self._fleet.target()
            nothing_new = target is not None and found.identity == target.latest
            if nothing_new or self._ledger.find_quarantined(found.identity):
                self._confirm(found.identity, deadline)
            elif refresh or target is None or target.stale:
                with self._noting_failure():
                    self._take(found, found.identity, deadline)
            else:
                self._note_answered()

    def report(self) -> None:
        """Tell the other workers what this one has in use."""
        model = self._holder.current()
        status = own_status(self._fleet.slot, error=self._error, response_times=self._response_times.counts())
        if model is not None:
            status = status.using(
                generation=self._generation,
                version=model.version,
                digest=model.digest,
                engine=model.engine.name,
                loaded_at=model.loaded_at.timestamp(),
            )
        self._fleet.report(status)

    # What a caller asks for

    def reload(self, version: str | None = None) -> Reloaded:
        """Bring *version*, or what is under `MODEL_KEY`, into every worker of this host, and return when it is there.

        A version that is asked for by name is taken out of quarantine, if it passes. Calls that wait for each other
        share one answer: it is as good for every call that came before the look at the store. Raises
        `ModelVersionNotFound`, `ModelRejected`, `ModelQuarantined`, `ModelStoreUnavailable` or `WorkersNotConverged`.
        """
        asked_at, deadline = time.monotonic(), self._deadline()
        with self._one_at_a_time(deadline):
            before = self._fleet.target()
            target = self._shared_answer(version, asked_at) or self._reload(version, deadline)
        unchanged = before is not None and before.generation == target.generation
        return self._converged("unchanged" if unchanged else "loaded", target)

    def roll_back(self) -> Reloaded:
        """Bring the model that was in use before into every worker, from this host's cache.

        The model that is left is put into quarantine: it comes back only if it is asked for by name. Raises
        `NoPreviousModel` or `WorkersNotConverged`.
        """
        deadline = self._deadline()
        with self._changing(deadline):
            self.follow()
            left = self._holder.require()
            previous = self._previous(left.digest)
            target = self._fleet.target()
            latest = None if target is None else target.latest
            rolled_back = self._agree_on(self._load_announced(previous, deadline), latest)
            self._ledger.note_left(left.digest)
            self._ledger.quarantine(left.identity, left.version, left.digest, gate="rollback", reason="rolled_back")
        self._metrics.model_rollbacks.inc()
        logger.warning(
            "model rolled back",
            extra={
                "event": "model rolled back",
                "version": rolled_back.version,
                "digest": rolled_back.digest,
                "generation": rolled_back.generation,
                "left_version": left.version,
            },
        )
        return self._converged("rolled_back", rolled_back)

    def versions(self) -> Versions:
        """Say which versions the store has, and what this host thinks of them.

        Raises `ModelStoreUnavailable`.
        """
        try:
            latest = self._store.latest()
        except ModelVersionNotFound:
            latest = None
        return Versions(self._store.versions(), latest, self._holder.current(), self._ledger.quarantined())

    @contextlib.contextmanager
    def _one_at_a_time(self, deadline: float) -> Iterator[None]:
        """Be the only one who brings a model from the store."""
        if not self._reloading.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _still_under_way()
        try:
            with self._fleet.fetching(deadline) as fetching:
                if not fetching:
                    raise _still_under_way()
                yield
        finally:
            self._reloading.release()

    @contextlib.contextmanager
    def _changing(self, deadline: float) -> Iterator[None]:
        """Be the only one who changes what the host agreed on, and what it remembers."""
        with self._fleet.changing(deadline) as changing:
            if not changing:
                raise _still_under_way()
            yield

    def _shared_answer(self, version: str | None, asked_at: float) -> Target | None:
        """Return, or raise, what came out of a reload that looked at the store after *asked_at*; None without one."""
        finished, target = self._fleet.last_reload(), self._fleet.target()
        if finished is None or not finished.answers(version, asked_at, target):
            return None
        finished.raise_error()
        return target

    def _reload(self, version: str | None, deadline: float) -> Target:
        """Take *version*, or the latest, and leave the answer to the other callers."""
        looked_at = time.monotonic()
        try:
            with self._noting_failure():
                target = self._take_latest(deadline) if version is None else self._take_version(version, deadline)
        except SHARED_ERRORS as error:
            self._fleet.note_reload(FinishedReload.failed(version, looked_at, error))
            raise
        self._fleet.note_reload(FinishedReload(version, looked_at, target.generation))
        return target

    def _converged(self, outcome: Outcome, target: Target) -> Reloaded:
        """Return when every worker has *target*."""
        workers = self._fleet.wait_until_converged(target.generation, time.monotonic() + _CONVERGENCE_SECONDS)
        behind = [worker for worker in workers if worker.generation < target.generation]
        if behind:
            raise WorkersNotConverged(
                f"{len(behind)} of {len(workers)} workers did not take the model in time.",
                members={"workers": [describe_worker(worker, target.generation) for worker in workers]},
            )
        return Reloaded(outcome, target, workers)

    def _take_latest(self, deadline: float) -> Target:
        found = self._look()
        # Another worker may just have taken it, and this one not yet have seen that.
        self.follow()
        target = self._fleet.target()
        # Unchanged only if the host's decision was for it: a version asked for by name is not what is under MODEL_KEY.
        if target is not None and found.identity == target.latest and self._serves(found):
            self._metrics.model_reloads.labels("unchanged", "").inc()
            self._confirm(found.identity, deadline)
            return target
        self._refuse_quarantined(found.identity, found.version)
        return self._take(found, found.identity, deadline)

    def _take_version(self, version: str, deadline: float) -> Target:
        latest = self._latest_identity()
        try:
            found = self._store.find(version)
        except ModelVersionNotFound:
            self._note_answered()
            # A plain upload is called by its digest, which only whoever has its bytes can know.
            artifact = self._cache.find_version(version)
            if artifact is None:
                raise
            return self._bring_into_use(artifact, latest, deadline, by_name=True)
        return self._take(found, latest, deadline, by_name=True)

    def _refuse_quarantined(self, identity: str, version: str | None) -> None:
        entry = self._ledger.find_quarantined(identity)
        if entry is not None:
            self._note_answered()
            name = version or entry.version
            raise ModelQuarantined(
                f"Version {name} is in quarantine ({entry.gate}: {entry.reason}). Publish another one, or ask for "
                f'it by name: {{"version": "{name}"}}.',
                members={"version": name, "gate": entry.gate, "reason": entry.reason},
            )

    def _previous(self, digest: str) -> Artifact:
        previous = self._ledger.before(digest)
        while previous is not None:
            artifact = self._cache.find(previous)
            if artifact is not None:
                return artifact
            previous = self._ledger.before(previous)
        raise NoPreviousModel("This host has no earlier model to go back to.")

    def _serves(self, found: StoredModel) -> bool:
        model = self._holder.current()
        return model is not None and model.identity == found.identity

    def _latest_identity(self) -> str | None:
        try:
            return self._look().identity
        except ModelVersionNotFound:
            return None

    # Steps

    def _found_away_since(self, moment: float) -> bool:
        status = self._fleet.store()
        return status.reachable is False and (status.checked_at or 0.0) >= moment

    def _find_first(self, deadline: float) -> None:
        last = self._last_served()
        # With a model at hand, the store is not waited for long: the next poll takes what it has.
        patience = deadline if last is None else min(deadline, time.monotonic() + _START_SECONDS)
        try:
            with self._noting_failure():
                found = self._look_before(patience)
                self._refuse_quarantined(found.identity, found.version)
                self._take(found, found.identity, deadline, fetch_until=patience)
        except (ModelRejected, ModelQuarantined):
            # The store has nothing better than what was served last.
            self._fall_back(last, found.identity, deadline, stale=False)
        except (WineError, OSError):
            self._fall_back(last, None, deadline, stale=True)

    def _fall_back(self, last: Artifact | None, latest: str | None, deadline: float, *, stale: bool) -> None:
        if last is not None:
            self._bring_into_use(last, latest, deadline, stale=stale)

    def _last_served(self) -> Artifact | None:
        for digest in reversed(self._ledger.served()):
            artifact = self._cache.find(digest)
            if artifact is not None:
                return artifact
        return None

    def _take(
        self,
        found: StoredModel,
        latest: str | None,
        deadline: float,
        *,
        by_name: bool = False,
        fetch_until: float | None = None,
    ) -> Target:
        """Make *found* the host's model. Only inside `fetching`."""
        try:
            artifact = self._fetch(found, deadline if fetch_until is None else fetch_until)
            return self._bring_into_use(artifact, latest, deadline, by_name=by_name)
        except ModelRejected as error:
            name = found.version or found.identity
            with self._changing(self._deadline()):
                self._ledger.quarantine(found.identity, name, None, gate=error.gate, reason=error.reason)
            raise

    def _fetch(self, found: StoredModel, deadline: float) -> Artifact:
        try:
            artifact = self._cache.fetch(self._store, found, max_bytes=self._limits.max_bytes, deadline=deadline)
        except ModelStoreUnavailable as error:
            # A store that shows its model and does not hand it over is away too.
            if error.reason in DISK_REASONS:
                raise
            self._report_store(error.reason)
            raise NotHandedOver(error.reason, error.detail) from error
        self._note_answered()
        return artifact

    def _refuse_known_bytes(self, artifact: Artifact) -> None:
        """Refuse what is in quarantine under another key, or was uploaded once more: its new identity joins it."""
        entry = self._ledger.find_quarantined(artifact.identity, artifact.digest)
        if entry is not None:
            self._ledger.quarantine(
                artifact.identity, artifact.version, artifact.digest, gate=entry.gate, reason=entry.reason
            )
            self._refuse_quarantined(artifact.identity, artifact.version)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Log and count whatever keeps a model from being taken."""
        try:
            yield
        except (WineError, OSError) as error:
            outcome = "refused" if isinstance(error, ModelRejected) else "failed"
            self._metrics.model_reloads.labels(outcome, _reason(error)).inc()
            _log_failure("model not taken", error)
            raise

    def _bring_into_use(
        self, artifact: Artifact, latest: str | None, deadline: float, *, by_name: bool = False, stale: bool = False
    ) -> Target:
        """Make *artifact* the host's model; one that was asked for *by_name* leaves quarantine."""
        if not by_name:
            with self._changing(deadline):
                self._refuse_known_bytes(artifact)
        # Loaded here first: a model that does not pass raises, and nothing has changed.
        model = self._load_announced(artifact, deadline)
        with self._changing(self._deadline()):
            if by_name:
                self._ledger.release(artifact.identity, artifact.digest)
            else:
                # Once more: it may have been rolled back while it was loaded.
                self._refuse_known_bytes(artifact)
            return self._agree_on(model, latest, stale=stale)

    def _load_announced(self, artifact: Artifact, deadline: float) -> LoadedModel:
        """Load *artifact* while the other workers do the same, once it has survived its trial."""
        try:
            return self._loader.load(artifact, deadline, survived=lambda: self._fleet.announce(artifact.digest))
        except Exception:
            self._fleet.withdraw()
            raise

    def _prepared_for(self, target: Target) -> LoadedModel | None:
        prepared, self._prepared = self._prepared, None
        return prepared if prepared is not None and prepared.digest == target.digest else None

    def _load(self, target: Target) -> LoadedModel:
        return self._loader.load(self._cache.find(target.digest) or self._fetch_again(target), self._deadline())

    def _agree_on(self, model: LoadedModel, latest: str | None, *, stale: bool = False) -> Target:
        """Make *model* the target of every worker, and serve it in this one. Only inside `changing`."""
        with self._taking:
            target = self._fleet.publish(model.digest, model.version, latest, stale=stale)
            self._swap(model, target)
        self._ledger.note_served(model.digest)
        self._cache.prune(keep=self._ledger.served()[-2:])
        self._metrics.model_reloads.labels("loaded", "stale" if stale else "").inc()
        self.report()
        return target

    def _confirm(self, latest: str, deadline: float) -> None:
        self._note_answered()
        with self._changing(deadline):
            self._fleet.confirm(latest)

    def _fetch_again(self, target: Target) -> Artifact:
        """Fetch a model that the cache lost, as exactly what the host agreed on."""
        found = self._store.find(target.version)
        artifact = self._cache.fetch(self._store, found, max_bytes=self._limits.max_bytes, deadline=self._deadline())
        if artifact.digest != target.digest:
            raise ModelVersionNotFound("The store no longer holds the model that this host agreed on.")
        return artifact

    def _swap(self, model: LoadedModel, target: Target) -> None:
        self._holder.swap(model)
        self._generation = target.generation
        self._error = None
        fields = {"version": target.version, "digest": target.digest, "generation": target.generation}
        if model.engine_reason is not None:
            self._metrics.engine_fallbacks.labels(model.engine_reason).inc()
        logger.info(
            "model loaded",
            extra={
                "event": "model loaded",
                **fields,
                "duration_ms": model.load_ms,
                "engine": model.engine.name,
                "reason": model.engine_reason,
            },
        )

    def _look(self) -> StoredModel:
        """Look at what the store has, and let the whole host know if it does not answer.

        That it does is known when nothing is left to be fetched: see `_note_answered`.
        """
        started = time.perf_counter()
        try:
            found = self._store.latest()
        except WineError as failure:
            self._look_ms = _milliseconds_since(started)
            self._report_store(_reason(failure))
            raise
        self._look_ms = _milliseconds_since(started)
        return found

    def _look_before(self, deadline: float) -> StoredModel:
        """Look, or raise `ModelStoreUnavailable` at *deadline*; the look is then left behind."""
        answer: Future[StoredModel] = Future()

        def look() -> None:
            try:
                answer.set_result(self._look())
            except Exception as error:
                answer.set_exception(error)

        threading.Thread(target=look, name="first-look", daemon=True).start()
        try:
            return answer.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            self._report_store("timeout")
            raise ModelStoreUnavailable("timeout", "The model store did not answer in time.") from None

    def _note_answered(self) -> None:
        self._report_store(None)

    def _report_store(self, error: str | None) -> None:
        # A store that has no model has answered all the same.
        reachable = error in (None, ModelVersionNotFound.code)
        before = self._fleet.store().reachable
        self._fleet.report_store(StoreStatus(self._store.kind, reachable, time.time(), self._look_ms, error))
        if reachable and before is False:
            logger.info("store back", extra={"event": "store back"})
        elif not reachable and before is not False:
            logger.warning("store away", extra={"event": "store away", "reason": error})

    def _deadline(self) -> float:
        return time.monotonic() + self._limits.seconds


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


def _still_under_way() -> WorkersNotConverged:
    return WorkersNotConverged("Another change of the model is still under way.")


def _milliseconds_since(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 3)


def _reason(error: Exception) -> str:
    if isinstance(error, ModelRejected | ModelStoreUnavailable):
        return error.reason
    return error.code if isinstance(error, WineError) else "disk_failed"


def _log_failure(message: str, error: Exception, **fields: object) -> None:
    event = "model refused" if isinstance(error, ModelRejected) else "model failed"
    logger.warning(message, extra={"event": event, "reason": _reason(error), "detail": str(error), **fields})
