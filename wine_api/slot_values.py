"""The numbers that workers count in: each in a file of the worker's slot, which any worker can read.

prometheus_client's own (`MultiProcessValue`) asks at each count whether the process has forked, and looks up where its
number lies. That is half of what a count costs, and a request counts a dozen times. Here a worker says once that it has
forked. The files are prometheus_client's, and its collector reads them.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key

_packed = struct.Struct("dd").pack  # the number, and a time that only gauges of the most recent value have


class _Files:
    """The files of this process, by kind of metric, and the numbers in them."""

    folder = Path()
    process = "master"
    lock = threading.Lock()  # one for all: threads of a worker add the same numbers
    opened: dict[str, Any] = {}  # noqa: RUF012  # one a process, like the files
    values: list[SlotValue] = []  # noqa: RUF012

    @classmethod
    def of_kind(cls, kind: str) -> Any:
        if kind not in cls.opened:
            cls.opened[kind] = MmapedDict(str(cls.folder / f"{kind}_{cls.process}.db"))
        return cls.opened[kind]


def use_folder(folder: Path) -> None:
    """Keep the files under *folder*, which exists. Before the first number."""
    _Files.folder = folder


def use_process(name: str) -> None:
    """Go on with the numbers in the files of *name*, not with those of the process that this one was forked from."""
    with _Files.lock:
        _Files.process = name
        for file in _Files.opened.values():
            file.close()
        _Files.opened.clear()
        for value in _Files.values:
            value.bind()


class SlotValue:
    """One number of one metric; what prometheus_client asks of a value class."""

    _multiprocess = True

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        self._kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        self._key = mmap_key(metric_name, name, labelnames, labelvalues, help_text)
        with _Files.lock:
            self.bind()
            _Files.values.append(self)

    def bind(self) -> None:
        """Find the number in the files of this process, or put it there. Only with the lock."""
        self._file = _Files.of_kind(self._kind)
        self._value: float = self._file.read_value(self._key)[0]
        position = self._file._positions[self._key]
        self._place = slice(position, position + 16)

    def inc(self, amount: float) -> None:
        """Add *amount*."""
        with _Files.lock:
            self._value += amount
            # In one assignment, so that who reads the file never sees half of a number. The map grows with the file.
            self._file._m[self._place] = _packed(self._value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Make it *value*."""
        with _Files.lock:
            self._value = value
            self._file._m[self._place] = _packed(value, timestamp or 0.0)

    def get(self) -> float:
        """Return what this process counted."""
        return self._value

    def set_exemplar(self, exemplar: Any) -> None:
        """Leave it: files hold no exemplars."""

    def get_exemplar(self) -> None:
        """Return none: files hold no exemplars."""
