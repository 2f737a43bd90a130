"""Where log lines go: standard output, without a request ever waiting for whoever reads it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue

from wine_api.observability.lines import Line, as_json

# A pipe takes up to PIPE_BUF (4096) bytes whole: what is longer could run into what another worker writes.
_MOST_BYTES_AT_ONCE = 4096
_MOST_WAITING = 5000  # lines; some 2 MB, at most 20
_GATHER_SECONDS = 0.02  # one system call for the lines of that time costs less than one for each
_PATIENCE_SECONDS = 0.2  # of the master, which writes few lines and must stay able to replace workers
_FLUSH_SECONDS = 1.0


class LineWriter:
    """Writes whole lines to *descriptor*.

    The master writes at once. A worker has a thread that does it (`begin_thread`), and when nobody reads, lines wait,
    up to a limit; then they are dropped and counted: predictions go on.
    """

    def __init__(self, descriptor: int = 1, write_as: Callable[[Line], bytes] = as_json) -> None:
        self._descriptor = descriptor
        self._write_as = write_as
        self._waiting: SimpleQueue[bytes | Line | threading.Event] | None = None
        self._count_dropped: Callable[[int], None] = lambda _: None

    def begin_thread(self, count_dropped: Callable[[int], None]) -> None:
        """Write in a thread of this process from now on, and tell *count_dropped* how many lines were lost."""
        self._count_dropped = count_dropped
        self._waiting = SimpleQueue()
        threading.Thread(target=self._write_for_ever, args=(self._waiting,), name="log-writer", daemon=True).start()

    def write(self, line: bytes | Line) -> None:
        """Write *line* soon, or lose it rather than wait.

        Text ends with a line break. Fields, which must not change any more, are turned into text by the thread: many at
        a time, which takes a fraction of what each takes in the middle of a request.
        """
        waiting = self._waiting
        if waiting is None:
            self._write_now(self._text(line))
        elif waiting.qsize() < _MOST_WAITING:
            waiting.put(line)
        else:
            self._count_dropped(1)

    def flush(self) -> None:
        """Return when all lines so far are written, or when whoever reads them takes too long."""
        if self._waiting is not None:
            written = threading.Event()
            self._waiting.put(written)
            written.wait(_FLUSH_SECONDS)

    def _text(self, line: bytes | Line) -> bytes:
        return line if isinstance(line, bytes) else self._write_as(line)

    def _texts(self, lines: Iterable[bytes | Line]) -> Iterator[bytes]:
        for line in lines:
            try:
                yield self._text(line)
            except Exception:  # one line less, and the thread lives on
                self._count_dropped(1)

    def _write_now(self, line: bytes) -> None:
        writable = select.poll()
        writable.register(self._descriptor, select.POLLOUT)
        with contextlib.suppress(OSError):
            if writable.poll(1000 * _PATIENCE_SECONDS):
                os.write(self._descriptor, line)

    def _write_for_ever(self, waiting: SimpleQueue[bytes | Line | threading.Event]) -> None:
        while True:
            gathered = [waiting.get()]
            time.sleep(_GATHER_SECONDS)
            with contextlib.suppress(Empty):
                while True:
                    gathered.append(waiting.get_nowait())
            self._write_all([*self._texts(line for line in gathered if not isinstance(line, threading.Event))])
            for written in gathered:
                if isinstance(written, threading.Event):
                    written.set()

    def _write_all(self, lines: Sequence[bytes]) -> None:
        for together in _packed(lines):
            try:
                self._write_whole(b"".join(together))
            except OSError:  # a closed pipe, a full disk
                self._count_dropped(len(together))

    def _write_whole(self, content: bytes) -> None:
        while content:
            try:
                content = content[os.write(self._descriptor, content) :]
            except BlockingIOError:  # whoever made the pipe may have made it so
                select.select([], [self._descriptor], [])


def _packed(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield *lines* in groups that a pipe takes whole."""
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and size + len(line) > _MOST_BYTES_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group
