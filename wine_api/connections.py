"""What becomes of a connection between two requests.

Gunicorn has the kernel look at a connection after each answer, and look away before the next request: two system calls
and a search among all connections, each time. Here the kernel is told once, and tells of each arrival once. What comes
while a request is under way is not told again: that is looked for when it has been answered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from selectors import SelectorKey
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from wine_api import plain_requests, quick_sockets
from wine_api.plain_requests import PlainRequest

_MOST_READ = 1 << 16  # bytes of a request: about a thousand wines


class Connection(TConn):  # type: ignore[misc]
    """A connection, of which the worker knows whether it rests.

    The request on it, or that waits on it, has *arrived* then, by the monotonic clock.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.arrived = 0.0
        self.rests = False
        self.plain_request: PlainRequest | None = None  # the one on it, if that was read already
        self._watched: tuple[quick_sockets.Poller, SelectorKey] | None = None

    def peek(self) -> bytes | None:
        """Return the beginning of the next request, and leave it there; None is nothing yet, empty that nothing will.

        What follows a request can have been read along with it.
        """
        return self._buffered() or quick_sockets.peek(self.sock.fileno())

    def read_plain(self, content: bytes, size: float) -> None:
        """Read the next request unless that needs a parser: *content* was its beginning, of *size* bytes in all."""
        if self._buffered() or size > _MOST_READ:
            return
        descriptor, size = self.sock.fileno(), int(size)
        if len(content) < size:
            content = quick_sockets.peek_further(descriptor, size)
        request = plain_requests.read(content)
        if request is not None and quick_sockets.discard(descriptor, size) == size:
            self.plain_request = request

    def _buffered(self) -> bytes:
        return b"" if self.parser is None else self.parser.unreader.buf.getvalue()

    @property
    def is_watched(self) -> bool:
        """Whether a poller tells of what arrives."""
        return self._watched is not None

    def watch(self, poller: quick_sockets.Poller, callback: Any) -> None:
        """Have *poller* call *callback* at each arrival, from now on. Raises OSError."""
        if self._watched is None:
            self._watched = poller, poller.watch(self.sock, callback)

    def detach(self) -> int:
        """Return the descriptor, which is the caller's now."""
        self._forget()
        return int(self.sock.detach())

    def close(self, graceful: bool = False) -> None:
        """Close the connection."""
        self._forget()
        super().close(graceful)

    def _forget(self) -> None:
        if self._watched is not None:
            poller, key = self._watched
            poller.forget(key)
            self._watched = None


@dataclass(slots=True, eq=False)
class Answered:
    """What became of the request on *conn*, as Gunicorn asks for it: like a `Future` that is done."""

    conn: Any
    outcome: Any

    def cancelled(self) -> bool:
        """Whether nobody answered."""
        return False

    def exception(self) -> None:
        """Return what was raised."""

    def result(self) -> Any:
        """Return whether the connection can take another request."""
        return self.outcome


class Resting:
    """The connections that wait for their next request, the first to have begun first.

    Stands in for Gunicorn's deque, which is searched whenever one of them goes on.
    """

    def __init__(self) -> None:
        self._connections: OrderedDict[Any, None] = OrderedDict()

    def append(self, connection: Any) -> None:
        """Add *connection*."""
        self._connections[connection] = None

    def remove(self, connection: Any) -> None:
        """Take *connection* out."""
        del self._connections[connection]

    def popleft(self) -> Any:
        """Take the first one out and return it."""
        return self._connections.popitem(last=False)[0]

    def __getitem__(self, number: int) -> Any:
        if number != 0:
            raise IndexError(number)
        return next(iter(self._connections))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)


class ConnectionsWorker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threaded worker, whose connections rest between requests at less cost."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keepalived_conns = Resting()

    def run(self) -> None:
        """Work until told to stop."""
        self.poller.close()  # type: ignore[has-type]
        self.poller = quick_sockets.Poller()
        super().run()

    def finish_request(self, conn: Any, fs: Future[Any] | Answered) -> None:
        """Wait for the next request of *conn*, or close it."""
        if fs.cancelled() or fs.exception() is not None or fs.result() is not True:
            super().finish_request(conn, fs)
        else:
            self.rest(conn)

    def rest(self, conn: Connection) -> None:
        """Wait for the next request of *conn*, unless it is there already."""
        if conn.peek() is not None:
            self.enqueue_req(conn)
            return
        try:
            conn.watch(self.poller, partial(self._wake, conn))
        except OSError:
            self.nr_conns -= 1
            conn.close()
            return
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        conn.rests = True
        self.keepalived_conns.append(conn)

    def _wake(self, conn: Connection, _: Any) -> None:
        if conn.rests:
            conn.rests = False
            self.keepalived_conns.remove(conn)
            self.enqueue_req(conn)
