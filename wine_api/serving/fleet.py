"""The workers of this host, who agree on one model through files.

run.json                how many workers this run began with
was_ready               there once they all had a model
target.json             the model every worker is to have: a generation that counts up, a digest, a version
workers/<slot>.lock     held by a worker for its life; the kernel frees it, however the worker ends
workers/<slot>.json     what that worker has in use: its acknowledgement of a target
store.json              the last look at the store, by whichever worker looked
coming.json             the model that a worker is about to make the target, for the others to load meanwhile
reload.json             the last reload that a caller asked for: its answer, for those who waited for it
fetch.lock              held by the one worker that brings a model from the store, as long as that may take
change.lock             held by the one worker that changes the target; never while the store is asked
lookout.lock            held by the one worker that looks at the store for all, from time to time
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from wine_api.errors import (
    ModelNotChecked,
    ModelQuarantined,
    ModelRejected,
    ModelStoreUnavailable,
    ModelVersionNotFound,
    WineError,
)
from wine_api.metrics import HostGauges
from wine_api.response_times import Percentiles, percentiles
from wine_api.serving import files

# What tells one version of a file from another.
Stamp = tuple[int, int]

_CONVERGENCE_POLL_SECONDS = 0.02
_SLOT_TRIES = 3
_SLOT_TRY_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Target:
    """The model that every worker of this host is to have.

    *generation* counts the targets of this run. *latest* is the identity of what lay under `MODEL_KEY` when the host
    decided on this target, which may be another model: one that was asked for by name stays until the store changes.
    None if it was not known. *stale* says that the target came from the cache while the store was away.
    """

    generation: int
    digest: str
    version: str
    latest: str | None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What one worker has in use.

    *pid* 0 is a worker that is still starting, *generation* 0 one without a model. *error* says why it has not
    taken the target.
    """

    slot: int
    pid: int
    generation: int = 0
    version: str | None = None
    digest: str | None = None
    engine: str | None = None
    loaded_at: float | None = None
    error: str | None = None
    response_times: dict[int, int] = field(default_factory=dict)

    def using(self, *, generation: int, version: str, digest: str, engine: str, loaded_at: float) -> WorkerStatus:
        """Return this status with a model in use."""
        return replace(self, generation=generation, version=version, digest=digest, engine=engine, loaded_at=loaded_at)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the last look at the store found. *checked_at* is in seconds since the epoch; *error* names the cause."""

    kind: str
    reachable: bool | None = None
    checked_at: float | None = None
    latency_ms: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What the workers of this host know together, at one moment."""

    workers: list[WorkerStatus]
    target: Target | None
    store: StoreStatus

    @property
    def generation(self) -> int:
        """The generation that every worker is to have; 0 before the first model."""
        return 0 if self.target is None else self.target.generation

    @property
    def stale(self) -> bool:
        """Whether the model comes from the cache, and the store has not confirmed it since."""
        return self.target is not None and self.target.stale

    @property
    def converged(self) -> int:
        """How many workers have the target."""
        return sum(1 for worker in self.workers if worker.generation >= self.generation > 0)

    @property
    def response_times(self) -> Percentiles:
        """The response times of all workers over the last minutes."""
        return percentiles(worker.response_times for worker in self.workers)

    @property
    def gauges(self) -> HostGauges:
        """What the metrics say of the host."""
        in_use = {
            (worker.version, worker.digest, worker.engine)
            for worker in self.workers
            if worker.version and worker.digest and worker.engine
        }
        return HostGauges(
            models=sorted(in_use),
            generation=self.generation,
            loaded_at=max((worker.loaded_at for worker in self.workers if worker.loaded_at), default=None),
            stale=self.stale,
            workers=len(self.workers),
            workers_converged=self.converged,
            store_up=self.store.reachable,
        )


@dataclass(frozen=True, slots=True)
class Coming:
    """The model with *digest*, which the worker in *slot* is about to make the target."""

    digest: str
    slot: int


# What a reload can end with that holds for everybody who waited for it.
SHARED_ERRORS = (ModelNotChecked, ModelQuarantined, ModelRejected, ModelStoreUnavailable, ModelVersionNotFound)


@dataclass(frozen=True, slots=True)
class FinishedReload:
    """What came out of a reload of *version*, or of the latest.

    *looked_at* is when it began to look at the store (`time.monotonic()`, which is one clock for all processes of a
    host); *error* is what was raised, in words that fit into a file.
    """

    version: str | None
    looked_at: float
    generation: int | None = None
    error: dict[str, Any] | None = None

    @classmethod
    def failed(cls, version: str | None, looked_at: float, error: WineError) -> FinishedReload:
        """Return what came out of a reload that raised *error*."""
        said = {"code": error.code, "detail": error.detail, "members": error.members}
        return cls(version, looked_at, error=said)

    def answers(self, version: str | None, asked_at: float, target: Target | None) -> bool:
        """Whether it is the answer for who asked for *version* at *asked_at*: nothing newer can have been meant."""
        still_true = self.error is not None or (target is not None and target.generation == self.generation)
        return self.version == version and self.looked_at >= asked_at and still_true

    def raise_error(self) -> None:
        """Raise what the reload raised, if it did."""
        if self.error is None:
            return
        kind: Any = next(kind for kind in SHARED_ERRORS if kind.code == self.error["code"])
        if issubclass(kind, ModelRejected | ModelStoreUnavailable):
            raise kind(**self.error["members"], detail=self.error["detail"])
        raise kind(self.error["detail"], members=self.error["members"])


class Fleet:
    """This worker's view of all workers of the host, itself included."""

    def __init__(self, folder: Path, store_kind: str) -> None:
        self._folder = folder
        self._store_kind = store_kind
        self._slot_lock: IO[bytes] | None = None
        self._lookout_lock: IO[bytes] | None = None
        self.slot = -1

    def begin_run(self, expected_workers: int) -> None:
        """Forget the run before: its target and its workers. Called once, before the first worker starts."""
        files.make_private_folder(self._folder)
        self._workers_folder.mkdir(exist_ok=True)
        for name in ("target.json", "coming.json", "reload.json", "store.json", "was_ready"):
            (self._folder / name).unlink(missing_ok=True)
        for leftover in self._workers_folder.iterdir():
            leftover.unlink()
        files.write_json(self._folder / "run.json", {"expected_workers": expected_workers})

    # Membership

    def join(self) -> int:
        """Take the lowest free slot for the life of this process and return it."""
        files.make_private_folder(self._folder)
        self._workers_folder.mkdir(exist_ok=True)
        self.slot = 0
        while (lock := self._try_slot(self.slot)) is None:
            self.slot += 1
        self._slot_lock = lock
        self._status_path(self.slot).unlink(missing_ok=True)
        return self.slot

    def _try_slot(self, slot: int) -> IO[bytes] | None:
        for _ in range(_SLOT_TRIES):
            if (lock := files.try_lock(self._lock_path(slot))) is not None:
                return lock
            # Another worker may just be looking whether the slot is free, which takes its lock for a moment.
            time.sleep(_SLOT_TRY_SECONDS)
        return None

    def leave(self) -> None:
        """Give the slot back."""
        for lock in (self._slot_lock, self._lookout_lock):
            if lock is not None:
                lock.close()
        self._slot_lock = self._lookout_lock = None

    def free_slots(self) -> list[int]:
        """Return the slots whose worker is gone."""
        return [slot for slot, taken in self._slots() if not taken]

    def take_lookout(self) -> bool:
        """Whether this worker is the one that looks at the store for all; the first to ask is, until it ends."""
        if self._lookout_lock is None:
            self._lookout_lock = files.try_lock(self._folder / "lookout.lock")
        return self._lookout_lock is not None

    # The target

    def target(self) -> Target | None:
        """Return the model that every worker is to have, or None before there is one."""
        document = files.read_json(self._folder / "target.json")
        return None if document is None else Target(**document)

    def target_stamp(self) -> Stamp | None:
        """Return what changes whenever the target does; cheap enough to ask many times a second."""
        return _stamp(self._folder / "target.json")

    def announce(self, digest: str) -> None:
        """Tell the others that the model with *digest* will be the target, unless a gate still refuses it."""
        files.write_json(self._folder / "coming.json", asdict(Coming(digest, self.slot)))

    def withdraw(self) -> None:
        """Tell the others that the model that was announced does not come."""
        (self._folder / "coming.json").unlink(missing_ok=True)

    def coming(self) -> Coming | None:
        """Return the model that was announced last, or None."""
        document = files.read_json(self._folder / "coming.json")
        return None if document is None else Coming(**document)

    def coming_stamp(self) -> Stamp | None:
        """Return what changes whenever `coming` does."""
        return _stamp(self._folder / "coming.json")

    def fetching(self, deadline: float) -> AbstractContextManager[bool]:
        """Be the only one who brings a model from the store; yields False if that was not possible in time."""
        return files.locked(self._folder / "fetch.lock", deadline)

    def changing(self, deadline: float) -> AbstractContextManager[bool]:
        """Be the only one who changes the target; yields False if that was not possible before *deadline*."""
        return files.locked(self._folder / "change.lock", deadline)

    def publish(self, digest: str, version: str, latest: str | None, *, stale: bool = False) -> Target:
        """Make the model with *digest* the target of every worker. Only inside `changing`."""
        current = self.target()
        generation = 1 if current is None else current.generation + 1
        target = Target(generation, digest, version, latest, stale)
        files.write_json(self._folder / "target.json", asdict(target))
        return target

    def confirm(self, latest: str) -> None:
        """Say that the target is still right with *latest* in the store: it is not stale, and no new generation."""
        target = self.target()
        if target is None:
            return
        confirmed = replace(target, latest=latest, stale=False)
        if confirmed != target:
            files.write_json(self._folder / "target.json", asdict(confirmed))

    # What callers ask for

    def note_reload(self, finished: FinishedReload) -> None:
        """Leave the answer to those who wait. Only inside `fetching`."""
        files.write_json(self._folder / "reload.json", asdict(finished))

    def last_reload(self) -> FinishedReload | None:
        """Return what came out of the last reload that a caller asked for."""
        document = files.read_json(self._folder / "reload.json")
        return None if document is None else FinishedReload(**document)

    # Who has what

    def report(self, status: WorkerStatus) -> None:
        """Tell the others what this worker has in use."""
        files.write_json(self._status_path(status.slot), asdict(status))

    def workers(self) -> list[WorkerStatus]:
        """Return the status of each living worker, by slot."""
        return [self._read_status(slot) for slot, taken in self._slots() if taken]

    def all_have_a_model(self) -> bool:
        """Whether every worker that takes requests has a model, and all that the run began with have come up once.

        A worker that starts later does not count before it takes requests: while it loads, the others answer.
        """
        taking_requests = [worker for worker in self.workers() if worker.pid]
        if not taking_requests or not all(worker.generation for worker in taking_requests):
            return False
        was_ready = self._folder / "was_ready"
        if not was_ready.exists():
            run = files.read_json(self._folder / "run.json") or {"expected_workers": 1}
            if len(taking_requests) < run["expected_workers"]:
                return False
            was_ready.touch()
        return True

    def wait_until_converged(self, generation: int, deadline: float) -> list[WorkerStatus]:
        """Wait until every worker that takes requests has *generation*, or until *deadline*; return those workers.

        A worker that still starts need not be waited for: it looks at the target again before its first request.
        """
        while True:
            workers = [worker for worker in self.workers() if worker.pid]
            if all(worker.generation >= generation for worker in workers) or time.monotonic() >= deadline:
                return workers
            time.sleep(_CONVERGENCE_POLL_SECONDS)

    def status(self) -> HostStatus:
        """Return what the workers of this host know together."""
        return HostStatus(self.workers(), self.target(), self.store())

    # The store, as it was last seen

    def report_store(self, status: StoreStatus) -> None:
        """Tell the others what a look at the store found."""
        files.write_json(self._folder / "store.json", asdict(status))

    def store(self) -> StoreStatus:
        """Return what the last look at the store found, by whichever worker."""
        document = files.read_json(self._folder / "store.json")
        return StoreStatus(self._store_kind) if document is None else StoreStatus(**document)

    @property
    def _workers_folder(self) -> Path:
        return self._folder / "workers"

    def _lock_path(self, slot: int) -> Path:
        return self._workers_folder / f"{slot}.lock"

    def _status_path(self, slot: int) -> Path:
        return self._workers_folder / f"{slot}.json"

    def _slots(self) -> list[tuple[int, bool]]:
        """Return every slot that was ever used in this run, and whether a living worker has it."""
        locks = self._workers_folder.glob("*.lock")
        return sorted((int(path.stem), files.is_locked(path)) for path in locks)

    def _read_status(self, slot: int) -> WorkerStatus:
        document: dict[str, Any] | None = files.read_json(self._status_path(slot))
        if document is None:
            return WorkerStatus(slot, 0)
        # JSON turned the numbers of the buckets into text.
        times = {int(bucket): count for bucket, count in document.pop("response_times", {}).items()}
        return WorkerStatus(**document, response_times=times)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def own_status(slot: int, *, error: str | None, response_times: dict[int, int]) -> WorkerStatus:
    """Return the status of this process, without a model."""
    return WorkerStatus(slot, os.getpid(), error=error, response_times=response_times)
