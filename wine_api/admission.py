"""Which requests a worker takes, when there are more than it can answer.

Those that nobody has accepted yet wait in a queue that all workers of the host share. A worker with enough to do takes
from it slowly, so that others are faster. When somebody has waited all the time for a while, more comes than can be
answered: then the worker goes in rounds. In each it refuses those who have waited for two rounds, and collects those
who have come; from these a thread takes one after the other meanwhile, the last first, who has waited least. It reads
most of them without a parser, and sends a few answers at a time. To refuse many at a time costs a third of refusing
them one by one, and those who ask again at once can do so a few dozen times a second only.

All of this runs on the worker's main thread, where nothing may wait, except for `_answer` and what that calls.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from wine_api import native_threads, quick_sockets
from wine_api.busy_threads import BusyThreads
from wine_api.config import Settings
from wine_api.connections import Answered, Connection, ConnectionsWorker
from wine_api.errors import Overloaded
from wine_api.security import overload
from wine_api.security.headers import of_answer_without_application
from wine_api.services import services_of

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.008  # so long may somebody have waited, all the time, before there are too many
_ROUND_SECONDS = 0.006  # from the end of one to the beginning of the next
_REFUSED_AFTER_SECONDS = 0.016  # by the beginning of a round; until then room may be found
_BUSY_ENOUGH = 0.85  # of the time of a processor: then one more thread would not answer more
_TRY_FEWER_AFTER_SECONDS = 1.0
_HELD_SECONDS = 0.001  # that a thread holds an answer to send others with it: about four to a single wine
_STEP_SECONDS = 0.0001  # that other workers may take the next connection, for each request under way here
_MOST_AT_ONCE = 512  # connections that are accepted together: some ten milliseconds of work
_MOST_DISCARDED = 1 << 20  # bytes of a refused request, at a time
_LINGER_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 1.0  # of the threads, while those who waited are refused
_SWITCH_SECONDS = 0.0005  # Python's own is 5 ms
_MOST_BESIDE = 128  # requests that only wait, and health checks, in one worker; others wait for those before them
_NOTIFY_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that waits for room since *arrived*.

    It is on *conn*, a connection of Gunicorn's, or on *descriptor*, which was just accepted at *listener*.
    """

    beginning: overload.Beginning
    arrived: float
    conn: Any = None
    descriptor: int = -1
    listener: Any = None


@dataclass(slots=True, eq=False)
class _Turn:
    """What a thread answers: the request on *conn*, and when there are too many, one after the other."""

    conn: Any


class AdmittingWorker(ConnectionsWorker):
    """Gunicorn's threaded worker, with an end to what it takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = Settings.from_environ()
        self._most_in_flight = settings.max_in_flight
        self._threads: int = self.cfg.threads
        # Threads that take by themselves when there are too many: more would only fight for the processor.
        self._fewest_takers = self._takers = min(native_threads.threads() or 1, self._threads)
        self._busy_threads = BusyThreads()
        self._next_try = 0.0  # with one taker less
        self._origins = settings.cors_origins
        self._in_flight = 0  # turns
        self._may_take = threading.Event()
        self._may_take.set()
        self._answered: deque[Answered] = deque()  # that the main thread has not seen yet
        self._crowd: deque[_Waiting] = deque()  # in the order in which they have come
        self._too_many = False  # as the last round has found
        self._saw_somebody = False  # at a listener, in this round of events
        self._nobody_waited = self._next_look = time.monotonic()
        self._headers: dict[str | None, bytes] = {}  # of refusals, by the origin of the page
        self._unsaid = 0  # refusals that are not in the log yet
        self._next_refusal_line = 0.0
        self._lingering: dict[socket.socket, float] = {}
        self._next_notice = 0.0
        self._answers = select.poll()  # tells when a request has been answered, and nothing else

    def init_process(self) -> None:
        """Begin."""
        # For what takes no turn from the others: health checks while they are busy, and requests that only wait.
        self._beside = ThreadPoolExecutor(_MOST_BESIDE, thread_name_prefix="beside")
        # The main thread must get its turn soon while the others compute, or those that it refuses wait.
        sys.setswitchinterval(_SWITCH_SECONDS)
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return the threads that answer."""
        return ThreadPoolExecutor(self._threads, "answering", self._busy_threads.add)

    def run(self) -> None:
        """Work until told to stop."""
        self._answers.register(self.method_queue, select.POLLIN)
        self._names = {listener: listener.getsockname() for listener in self.sockets}  # which do not change
        super().run()

    def notify(self) -> None:
        """Tell the master that this worker lives: once a second, not in each round."""
        now = time.monotonic()
        if now >= self._next_notice:
            self._next_notice = now + _NOTIFY_SECONDS
            super().notify()

    # Requests

    def enqueue_req(self, conn: Any) -> None:
        """Have a request answered in its turn, or at once; if there is no room, it waits.

        Once the threads are busy, health checks and scrapes go before all others.
        """
        conn.arrived = time.monotonic()
        if self._has_free_thread and (conn.initialized or conn.data_ready):
            self._submit(conn)  # the usual way looks at nothing
            return
        content = conn.peek()
        if content is None and conn.is_watched:
            self.rest(conn)
        elif content is None:
            self._wait_for_data(conn)
        elif content == b"":
            self._let_go(conn)
        else:
            conn.data_ready = True
            self._find_room(conn, overload.Beginning(content))

    def _find_room(self, conn: Any, beginning: overload.Beginning) -> None:
        if self._has_free_thread:
            self._submit(conn)
        elif beginning.is_always_answered():
            self._do_beside(conn, self.handle, conn)
        elif self._room + (_MOST_BESIDE if beginning.only_waits() else 0) > 0:
            self._submit(conn)
        else:
            self._crowd.append(_Waiting(beginning, conn.arrived, conn))

    def _fill_room(self) -> None:
        """Have requests answered that have waited for room."""
        while self._has_room and (conn := self._next_waiting()) is not None:
            self._submit(conn)

    def _next_waiting(self) -> Any:
        """Return the connection of the last who came, who has waited least, or None if nobody waits."""
        while True:
            try:
                waiting = self._crowd.pop()
            except IndexError:  # another thread was faster
                return None
            conn = waiting.conn or self._connect(waiting.descriptor, waiting.listener)
            if conn is not None:
                conn.arrived, conn.data_ready = waiting.arrived, True
                conn.read_plain(waiting.beginning.content, waiting.beginning.request_size())
                return conn

    def _let_go(self, conn: Any) -> None:
        # The client has left: that must not wait for a turn, nor count as a request under way.
        self.nr_conns -= 1
        conn.close()

    def _wait_for_data(self, conn: Any) -> None:
        # Whoever connects and says nothing must not take a thread that others need.
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _submit(self, conn: Any) -> None:
        self._in_flight += 1
        turn = _Turn(conn)
        done = self.tpool.submit(self._answer, turn)
        done.add_done_callback(lambda done: self.method_queue.defer(self._finish, turn, done))

    def _answer(self, turn: _Turn) -> None:
        """Answer the request of *turn*, on another thread, and others after it.

        Each on its own would need the main thread before and after it, which has enough to do.
        """
        unsent: list[Answered] = []
        until = 0.0
        try:
            while True:
                if not unsent:
                    until = time.monotonic() + _HELD_SECONDS
                unsent.append(Answered(turn.conn, self.handle(turn.conn)))
                if time.monotonic() >= until or not self._may_take.is_set():
                    self._send(unsent)
                following = self._next_waiting() if self._may_go_on() else None
                if following is None:
                    return
                if following.plain_request is None:  # its body may not come for a while
                    self._send(unsent)
                turn.conn = following
        finally:
            self._send(unsent)

    def _may_go_on(self) -> bool:
        """Whether the thread that asks, which has answered, shall take another request."""
        if not self._too_many or self._in_flight > self._takers:
            return False
        # Who refuses gets the interpreter for itself: in turns it would take twice as long, and refuse too late.
        return self._may_take.wait(_LONGEST_PAUSE_SECONDS)

    def _send(self, unsent: list[Answered]) -> None:
        """Send the answers that are held: who waits for several, a proxy for instance, is woken once."""
        for each in unsent:
            with contextlib.suppress(OSError):  # whoever looks at the connection next will see that the client has left
                each.conn.sock.release()
        self._answered.extend(unsent)
        unsent.clear()

    def _do_beside(self, conn: Any, work: Callable[..., Any], *args: Any) -> None:
        done = self._beside.submit(work, *args)
        done.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _finish(self, turn: _Turn, done: Future[Any]) -> None:
        self._in_flight -= 1
        self._finish_answered()
        if done.exception() is not None:
            self.finish_request(turn.conn, done)

    def _finish_answered(self) -> None:
        while self._answered:
            answered = self._answered.popleft()
            self.finish_request(answered.conn, answered)

    # Connections

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Do what there is to do, and see who waits: one round of events."""
        if self.alive:
            self.set_accept_enabled(self._may_accept)
        looks, self._saw_somebody = self._accepting, False
        timeout = min(timeout, self._seconds_until_look())
        if self._too_many and self._crowd:
            self._wait_for_room(timeout)
        else:
            super().wait_for_and_dispatch_events(timeout)
        self._finish_answered()
        self._fill_room()
        now = time.monotonic()
        if looks and not self._too_many and not self._saw_somebody and not self._crowd:
            self._nobody_waited = now
        elif now >= self._next_round:
            self._may_take.clear()
            try:
                self._begin_round()
            finally:
                self._may_take.set()

    def _wait_for_room(self, timeout: float) -> None:
        # Whoever comes meanwhile is looked at with all others in the next round: one by one would cost twice as much.
        if self._answers.poll(math.ceil(1000 * timeout)):
            self.method_queue.run_callbacks(None)

    @property
    def _has_free_thread(self) -> bool:
        return not self._too_many and self._in_flight < self._threads

    @property
    def _has_room(self) -> bool:
        return self._room > 0

    @property
    def _room(self) -> int:
        most = self._most_in_flight
        if self._too_many:  # then those who are answered shall be answered soon
            most = min(most, self._takers)
        return most - self._in_flight

    @property
    def _next_round(self) -> float:
        return self._nobody_waited + (_ROUND_SECONDS if self._too_many else _PATIENCE_SECONDS)

    @property
    def _may_accept(self) -> bool:
        return bool(self.alive and self.nr_conns < self.worker_connections)

    def _seconds_until_look(self) -> float:
        """Return after how many seconds something is to do even if nothing happens."""
        at = math.inf
        looks_later = self._may_accept and not self._accepting
        if looks_later or self._too_many or self._crowd:
            at = self._next_round
        if looks_later and self._has_room:
            at = min(at, self._next_look)
        return max(0.0, at - time.monotonic())

    def set_accept_enabled(self, enabled: bool) -> None:
        """Look at the listeners, if there is room, and it is not the turn of others."""
        super().set_accept_enabled(enabled and self._has_room and time.monotonic() >= self._next_look)

    def accept(self, listener: Any) -> None:
        """Accept one of those who wait; the more there is to do, the longer others may take the next ones."""
        self._saw_somebody = True
        for descriptor in quick_sockets.accept(listener, 1):
            self._enter(descriptor, listener)
        self._next_look = time.monotonic() + (self._in_flight + len(self.pending_conns)) * _STEP_SECONDS

    def accept_all(self, listener: Any) -> None:
        """Accept all of those who wait."""
        while accepted := quick_sockets.accept(listener, _MOST_AT_ONCE):
            for descriptor in accepted:
                self._enter(descriptor, listener)

    def _enter(self, descriptor: int, listener: Any) -> None:
        self.nr_conns += 1
        if (conn := self._connect(descriptor, listener)) is not None:
            self.enqueue_req(conn)

    def _connect(self, descriptor: int, listener: Any) -> Any:
        """Return a connection of Gunicorn's, which is counted already, or None if the client has left."""
        sock = quick_sockets.Socket(fileno=descriptor)
        try:
            return Connection(self.cfg, sock, sock.getpeername(), self._names[listener])
        except OSError:
            sock.close()
            self.method_queue.defer(self._count_out)
            return None

    def _count_out(self) -> None:
        self.nr_conns -= 1

    # Too many

    def _begin_round(self) -> None:
        """Refuse those who have waited for long, and collect those who have come meanwhile."""
        busy = self._busy_threads.share() if self._too_many else math.inf  # only a round tells
        self._finish_answered()
        refused = self._take_who_waited()
        if refused:
            self._refuse(refused)
        self._too_many = bool(refused or (self._too_many and self._crowd))
        self._choose_takers(busy)
        # First all are accepted, then looked at: meanwhile most of those that have just connected say something.
        listeners = self.sockets if self._may_accept else ()
        accepted = [(each, one) for one in listeners for each in quick_sockets.accept(one, _MOST_AT_ONCE)]
        now = time.monotonic()
        for descriptor, listener in accepted:
            self._collect(descriptor, listener, now)
        super().wait_for_and_dispatch_events(0)
        self._fill_room()
        self._busy_threads.begin()
        self._nobody_waited = time.monotonic()

    def _take_who_waited(self) -> list[_Waiting]:
        long_ago, taken = time.monotonic() - _REFUSED_AFTER_SECONDS, []
        with contextlib.suppress(IndexError):  # threads take from the other end
            while (waiting := self._crowd.popleft()).arrived <= long_ago:
                taken.append(waiting)
            self._crowd.appendleft(waiting)
        return taken

    def _choose_takers(self, busy: float) -> None:
        """Have so many threads take requests that the processor has something to do.

        They may wait for bodies that do not come, or for Redis. Whether fewer would do as well is tried now and then.
        """
        now = time.monotonic()
        if not self._too_many:
            self._takers = self._fewest_takers
            return
        if busy < _BUSY_ENOUGH * self._fewest_takers:
            self._takers = min(self._takers + 1, self._threads)
        elif now >= self._next_try:
            self._takers = max(self._takers - 1, self._fewest_takers)
        else:
            return
        self._next_try = now + _TRY_FEWER_AFTER_SECONDS

    def _collect(self, descriptor: int, listener: Any, now: float) -> None:
        content = quick_sockets.peek(descriptor)
        beginning = overload.Beginning(content or b"")
        if not content or beginning.goes_before_others():
            self._enter(descriptor, listener)
        else:
            self.nr_conns += 1
            self._crowd.append(_Waiting(beginning, now, descriptor=descriptor, listener=listener))

    def _refuse(self, refused: list[_Waiting]) -> None:
        # Before anybody is told: who is, and asks for the metrics, finds it counted.
        services_of(self.app.wsgi()).metrics.errors.labels(Overloaded.code).inc(len(refused))
        self._unsaid += len(refused)
        self.nr_conns -= len(refused)
        for waiting in refused:
            descriptor = waiting.descriptor if waiting.conn is None else waiting.conn.detach()
            self._refuse_and_close(descriptor, waiting.beginning)

    def _refuse_and_close(self, descriptor: int, beginning: overload.Beginning) -> None:
        # Closing with unread bytes would take the answer back.
        discarded = quick_sockets.discard(descriptor, _MOST_DISCARDED)
        if discarded >= beginning.request_size():
            quick_sockets.send_the_last(descriptor, self._refusal(beginning))
        elif quick_sockets.send(descriptor, self._refusal(beginning)):
            quick_sockets.end_sending(descriptor)
            self._linger(quick_sockets.Socket(fileno=descriptor))
        else:
            os.close(descriptor)

    def _refusal(self, beginning: overload.Beginning) -> bytes:
        origin = beginning.origin() if self._origins else None  # looked for only where it counts
        return beginning.refusal(self._headers_for(origin))

    def _headers_for(self, origin: str | None) -> bytes:
        if origin not in self._origins:
            origin = None
        if origin not in self._headers:
            found = of_answer_without_application(self._origins, origin)
            self._headers[origin] = "".join(f"{name}: {value}\r\n" for name, value in found.items()).encode("ascii")
        return self._headers[origin]

    def _linger(self, sock: socket.socket) -> None:
        """Throw away what still comes of a refused request, for a moment, then close."""
        self._lingering[sock] = time.monotonic() + _LINGER_SECONDS
        self.poller.register(sock, selectors.EVENT_READ, self._discard)

    def _discard(self, sock: socket.socket) -> None:
        if not quick_sockets.discard(sock.fileno(), _MOST_DISCARDED):
            self._end_lingering(sock)

    def _end_lingering(self, sock: socket.socket) -> None:
        del self._lingering[sock]
        self.poller.unregister(sock)
        sock.close()

    def murder_pending(self) -> None:
        """Close what has waited for long enough, and say how many requests were refused: once a round of events."""
        super().murder_pending()
        now = time.monotonic()
        while self._lingering and next(iter(self._lingering.values())) <= now:
            self._end_lingering(next(iter(self._lingering)))
        if self._unsaid and now >= self._next_refusal_line:
            # One line for all: a line each would cost more than refusing them.
            logger.warning("requests refused", extra={"reason": Overloaded.code, "requests": self._unsaid})
            self._unsaid, self._next_refusal_line = 0, now + 1.0
