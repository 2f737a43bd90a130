"""A lock in memory that processes share, which no process takes with it into death."""

from __future__ import annotations

import ctypes
import errno
import threading
import time
from types import TracebackType

SIZE = 64  # bytes; enough for a mutex of every C library on Linux
_PROCESS_SHARED = 1
_ROBUST = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


# Two views of the C library: one that keeps Python's own lock while it calls, and one that lets other threads run.
# The usual ways to lock, flock above all, let others run even when nobody else wants the lock: then a busy thread of
# this process takes its turn, up to 5 ms, while all other workers wait for what this one has just locked.
_keeping_others = ctypes.PyDLL(None)
_letting_others = ctypes.CDLL(None)


class LockTimeout(OSError):
    """Another process has held the lock for too long."""


class RobustLock:
    """A POSIX mutex at *address*: shared by processes, and freed by the kernel when its holder is killed.

    Of the threads of a process, one at a time asks for it. Not reentrant.
    """

    def __init__(self, address: int, timeout: float) -> None:
        self._mutex = ctypes.c_void_p(address)
        self._timeout = timeout
        self._threads = threading.Lock()

    def make(self) -> None:
        """Turn the bytes at the address into a mutex; once, by one process, before anybody locks it."""
        attributes = ctypes.create_string_buffer(SIZE)
        _check(_keeping_others.pthread_mutexattr_init(attributes))
        _check(_keeping_others.pthread_mutexattr_setpshared(attributes, _PROCESS_SHARED))
        _check(_keeping_others.pthread_mutexattr_setrobust(attributes, _ROBUST))
        _check(_keeping_others.pthread_mutex_init(self._mutex, attributes))

    def __enter__(self) -> None:
        if not self._threads.acquire(timeout=self._timeout):
            raise LockTimeout(errno.ETIMEDOUT, "another thread holds the lock")
        try:
            self._lock()
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _keeping_others.pthread_mutex_unlock(self._mutex)
        self._threads.release()

    def _lock(self) -> None:
        result = _keeping_others.pthread_mutex_trylock(self._mutex)
        if result == errno.EBUSY:
            result = _letting_others.pthread_mutex_timedlock(self._mutex, ctypes.byref(_in(self._timeout)))
        if result == errno.EOWNERDEAD:  # its holder was killed; what it guards is written so that this does no harm
            result = _keeping_others.pthread_mutex_consistent(self._mutex)
        if result == errno.ETIMEDOUT:
            raise LockTimeout(result, "another process holds the lock")
        _check(result)


def _in(seconds: float) -> _Timespec:
    moment = time.time() + seconds  # the clock that pthread_mutex_timedlock goes by
    return _Timespec(int(moment), int(moment % 1 * 1e9))


def _check(result: int) -> None:
    if result:
        raise OSError(result, "a POSIX mutex failed")
