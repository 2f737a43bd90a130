"""Whether this worker, or the whole instance, is about to stop."""

from __future__ import annotations

import mmap
import threading


class Draining:
    """Says so to every worker of an instance, if it was made before they were forked."""

    def __init__(self) -> None:
        self._here = threading.Event()
        self._everywhere = mmap.mmap(-1, 1)  # shared with the forks; gone with the last of them

    def set(self) -> None:
        """Say that this worker stops."""
        self._here.set()

    def set_everywhere(self) -> None:
        """Say that all workers of this instance will stop."""
        self._everywhere[0] = 1

    def is_set(self) -> bool:
        """Whether this worker, or all, are about to stop."""
        return self._here.is_set() or self.everywhere

    @property
    def everywhere(self) -> bool:
        """Whether all are."""
        return self._everywhere[0] == 1
