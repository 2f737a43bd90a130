"""Counting what callers use: together on one host through a file, or on many through Redis."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from wine_api.config import Rate
from wine_api.metrics import Metrics
from wine_api.security.robust_lock import SIZE as LOCK_SIZE
from wine_api.security.robust_lock import RobustLock

logger = logging.getLogger(__name__)

Name = tuple[int, int]  # 128 bits of a digest of what is counted, as two signed 64-bit numbers


class Count(NamedTuple):
    """What became of an attempt to use something: whether it was *taken*, and how the window stands now."""

    taken: bool
    used: int
    seconds_left: float


class Counters(Protocol):
    """Counts uses in windows of time. A window begins with its first use, and then ends after so many seconds."""

    def take(self, name: Name, cost: int, rate: Rate) -> Count:
        """Use *cost* of what *rate* allows *name*, all of it or nothing. Raises OSError if counting is impossible."""


class HostCounters:
    """Exact over all processes that use the file at *path*, also when one of them is killed in the middle."""

    # How a slot lies in the file: 16 bytes of the name, when its window ends, what was used.
    _SLOTS = 32768
    _SLOT_SIZE = 32
    _PROBES = 32  # slots that may hold a name
    _BEFORE_SLOTS = 128
    _SIZE = _BEFORE_SLOTS + _SLOTS * _SLOT_SIZE
    _LOCK_AT = 64
    _MADE = 0x57494E4531  # in the first 8 bytes once the file is ready
    _PATIENCE_SECONDS = 0.25

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table: _Table | None = None

    def take(self, name: Name, cost: int, rate: Rate) -> Count:
        """Use *cost* of what *rate* allows *name*."""
        table = self._table or self._open()
        with table.lock:
            return table.take(name, cost, rate, time.time())

    def _open(self) -> _Table:
        # At the first use, hence in each worker for itself: what a fork shares, it should not share by accident.
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            is_new = os.fstat(file.fileno()).st_size != self._SIZE
            if is_new:
                os.ftruncate(file.fileno(), 0)
                # Room for all of it now: a full disk later would end the worker with SIGBUS.
                os.posix_fallocate(file.fileno(), 0, self._SIZE)
            memory = mmap.mmap(file.fileno(), self._SIZE)
            table = _Table(memory, self._LOCK_AT, self._BEFORE_SLOTS, self._SLOTS, self._PROBES, self._PATIENCE_SECONDS)
            if table.mark != self._MADE:
                table.lock.make()
                table.mark = self._MADE
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: the mapping keeps a descriptor of its own
        self._table = table
        return table


class _Table:
    """Slots in shared memory, found by their name; what has ended makes room.

    Every number is written with one 64-bit store, and in an order that lets a reader never see a window with a count
    that is not its own: whoever is killed in between leaves a slot that looks ended, and has not answered anyone yet.
    """

    def __init__(
        self, memory: mmap.mmap, lock_at: int, slots_at: int, slots: int, probes: int, patience: float
    ) -> None:
        self._memory = memory
        view = memoryview(memory)
        self._numbers = view.cast("q")
        self._moments = view.cast("d")
        self._first = slots_at // 8
        self._mask = slots - 1
        self._probes = probes
        assert lock_at + LOCK_SIZE <= slots_at  # noqa: S101  # nosec B101  # the constants above fit together
        self.lock = RobustLock(ctypes.addressof(ctypes.c_char.from_buffer(memory, lock_at)), patience)

    @property
    def mark(self) -> int:
        return self._numbers[0]

    @mark.setter
    def mark(self, mark: int) -> None:
        self._numbers[0] = mark

    def take(self, name: Name, cost: int, rate: Rate, now: float) -> Count:
        numbers, moments = self._numbers, self._moments
        at, is_its_own = self._find(name, now)
        left = moments[at + 2] - now
        if is_its_own and 0 < left <= rate.seconds:  # longer is what the clock left behind when it was set back
            used = numbers[at + 3]
            if used + cost > rate.amount:
                return Count(False, used, left)
            numbers[at + 3] = used + cost
            return Count(True, used + cost, left)
        if cost > rate.amount:
            return Count(False, 0, rate.seconds)
        if not is_its_own:
            moments[at + 2] = 0.0
            numbers[at], numbers[at + 1] = name
        numbers[at + 3] = cost
        moments[at + 2] = now + rate.seconds
        return Count(True, cost, rate.seconds)

    def _find(self, name: Name, now: float) -> tuple[int, bool]:
        """Return where *name* is or can be, and whether it is there."""
        numbers, moments = self._numbers, self._moments
        first, second = name
        spare, spare_ends = -1, float("inf")
        for step in range(self._probes):
            at = self._first + 4 * ((first + step) & self._mask)
            if numbers[at] == first and numbers[at + 1] == second:
                return at, True
            ends = moments[at + 2]
            if ends < spare_ends and not spare_ends <= now:
                spare, spare_ends = at, ends
            if ends == 0.0 and numbers[at] == 0:  # never used, so nothing was ever put behind it
                break
        # Where all slots are in use, by a hundred thousand callers, the one that ends first makes room.
        return spare, False


class RedisCounters:
    """Exact over all hosts that use the same Redis."""

    # One call, and one step for Redis: nothing can come in between.
    _TAKE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local left = redis.call('PTTL', KEYS[1])
if used + tonumber(ARGV[1]) > tonumber(ARGV[2]) then
  if left < 0 then left = tonumber(ARGV[3]) end
  return {0, used, left}
end
used = redis.call('INCRBY', KEYS[1], ARGV[1])
if left < 0 then
  left = tonumber(ARGV[3])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {1, used, left}
"""
    _TIMEOUT_SECONDS = 0.2

    def __init__(self, url: str) -> None:
        # Imported here: most installations have no Redis.
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # Of a URL that cannot be used, what is raised here may show a part: it can be a password.
        client = redis.Redis.from_url(
            url,
            socket_timeout=self._TIMEOUT_SECONDS,
            socket_connect_timeout=self._TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # a caller waits; the host's own counters stand in
        )
        # Connects to nothing: an option of the URL that there is not fails here and not at every request.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
        self._take = client.register_script(self._TAKE)

    def take(self, name: Name, cost: int, rate: Rate) -> Count:
        """Use *cost* of what *rate* allows *name*."""
        key = f"wine-api:limit:{name[0] & _64_BITS:016x}{name[1] & _64_BITS:016x}"
        try:
            taken, used, left = self._take(keys=[key], args=[cost, rate.amount, 1000 * rate.seconds])
            return Count(bool(taken), used, left / 1000)
        except Exception as error:  # whatever the library raises: who cannot be counted here is counted elsewhere
            raise OSError(f"Redis failed: {type(error).__name__}") from error


_64_BITS = 2**64 - 1


class FallbackCounters:
    """Counts with *shared* as long as that works, and with *own* while it does not."""

    _PAUSE_SECONDS = 1.0  # between two attempts to get back

    def __init__(self, shared: Counters, own: Counters, metrics: Metrics) -> None:
        self._shared = shared
        self._own = own
        self._metrics = metrics
        self._away = False
        self._next_try = 0.0

    def take(self, name: Name, cost: int, rate: Rate) -> Count:
        """Use *cost* of what *rate* allows *name*."""
        now = time.monotonic()
        if self._away:
            if now < self._next_try:
                return self._take_own(name, cost, rate)
            self._next_try = now + self._PAUSE_SECONDS  # others need not wait for this attempt
        try:
            count = self._shared.take(name, cost, rate)
        except OSError as error:
            self._next_try = now + self._PAUSE_SECONDS
            if not self._away:
                self._away = True
                logger.warning("limits are counted by this host alone", extra={"reason": str(error)})
            return self._take_own(name, cost, rate)
        if self._away:
            self._away = False
            logger.info("limits are counted together again")
        return count

    def _take_own(self, name: Name, cost: int, rate: Rate) -> Count:
        self._metrics.rate_limit_fallbacks.inc()
        return self._own.take(name, cost, rate)
