"""How busy some threads are: whether they keep a processor at work, or wait for something else."""

from __future__ import annotations

import contextlib
import os
import time


class BusyThreads:
    """Some threads, each of which calls `add`.

    Source: Linux's /proc/thread-self/schedstat. Where that is missing, they all seem to wait.
    """

    def __init__(self) -> None:
        self._files: list[int] = []
        self._began = self._busy_by_then = 0.0

    def add(self) -> None:
        """Look at the thread that calls, too."""
        with contextlib.suppress(OSError):
            self._files.append(os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC))

    def begin(self) -> None:
        """Look at what they do from now on."""
        self._began, self._busy_by_then = time.monotonic(), self._busy_seconds()

    def share(self) -> float:
        """Return how many of them have computed since then, on average.

        Who waits for a processor counts as well: on a busy machine, more threads would not get more of it.
        """
        return (self._busy_seconds() - self._busy_by_then) / max(time.monotonic() - self._began, 1e-6)

    def _busy_seconds(self) -> float:
        # Nanoseconds on a processor, nanoseconds of waiting for one, and how often: the kernel's sched-stats.rst.
        figures = [os.pread(file, 100, 0).split() for file in self._files]
        return sum(int(computed) + int(waited) for computed, waited, _ in figures) / 1e9
