"""System calls on sockets that never wait, made without letting go of the interpreter.

Python lets other threads run around each call of a socket, and waits for its turn after it. Where all threads compute,
that turn comes half a millisecond later; to refuse a request takes five calls, so a crowd would have to queue to be
told that there is no room. These calls return at once, so nobody has to run meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import select
import selectors
import socket
import termios
from typing import Any

_libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL, unlike CDLL, keeps the interpreter

_accept4 = _libc.accept4
_accept4.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_recv = _libc.recv
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_recv.restype = ctypes.c_ssize_t
_send = _libc.send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_shutdown = _libc.shutdown
_shutdown.argtypes = (ctypes.c_int, ctypes.c_int)
_close = _libc.close
_close.argtypes = (ctypes.c_int,)
_getpeername = _libc.getpeername
_getpeername.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_epoll_ctl = _libc.epoll_ctl
_epoll_ctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_CTL_ADD, _CTL_DEL = 1, 2  # <sys/epoll.h>

_MOST_PEEKED = 4096  # bytes
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_DISCARD = socket.MSG_TRUNC | socket.MSG_DONTWAIT  # TCP throws away what it does not copy
_SEND = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
_SEND_WITH_WHAT_FOLLOWS = _SEND | socket.MSG_MORE
_ADDRESS_BYTES = 128  # sizeof(struct sockaddr_storage)
# Of the main thread alone, which copies every byte out before the next call.
_buffer = ctypes.create_string_buffer(_MOST_PEEKED)


class Socket(socket.socket):
    """A connection that was accepted here."""

    _held: list[bytes] | None = None

    def hold(self) -> None:
        """Keep what is sent from now on, until it is to be released or dropped."""
        self._held = []

    def release(self) -> None:
        """Send what was held, if anything was: as one packet, if it fits into one. Raises OSError.

        Unlike the other calls here, it waits for a client that is slow to take it.
        """
        content = self.drop()
        if not content:
            return
        sent = _send(self.fileno(), content, len(content), _SEND)
        if sent < 0 and (number := ctypes.get_errno()) != errno.EAGAIN:
            raise OSError(number, "send")
        if sent < len(content):
            self.setblocking(True)
            self.sendall(content[max(0, sent) :])

    def drop(self) -> bytes:
        """Return what was held, and hold no more."""
        held, self._held = self._held or [], None
        return b"".join(held)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send *data*, or hold it."""
        if self._held is None:
            super().sendall(data, flags)
        else:
            self._held.append(bytes(data))

    def setblocking(self, flag: bool) -> None:
        """Say whether calls on it wait."""
        _ioctl(self.fileno(), termios.FIONBIO, ctypes.byref(ctypes.c_int(not flag)))

    def getpeername(self) -> tuple[Any, ...]:
        """Return the address of the client. Raises OSError if it has left."""
        found = ctypes.create_string_buffer(_ADDRESS_BYTES)
        size = ctypes.c_uint32(len(found))
        if _getpeername(self.fileno(), found, ctypes.byref(size)) < 0:
            raise OSError(ctypes.get_errno(), "getpeername")
        address = found.raw  # struct sockaddr_in or sockaddr_in6
        port = int.from_bytes(address[2:4], "big")
        if self.family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, address[4:8]), port
        if self.family == socket.AF_INET6:
            return socket.inet_ntop(socket.AF_INET6, address[8:24]), port, 0, 0
        return super().getpeername()


def accept(listener: socket.socket, most: int) -> list[int]:
    """Return the connections that wait at *listener*, which must not block: at most so many."""
    descriptors = []
    for _ in range(most):
        descriptor = _accept4(listener.fileno(), None, None, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if descriptor < 0:
            break
        descriptors.append(descriptor)
    return descriptors


def peek(descriptor: int) -> bytes | None:
    """Return the first 4 KiB of what has come, and leave it there; None is nothing yet, empty that nothing will."""
    count = _recv(descriptor, _buffer, _MOST_PEEKED, _PEEK)
    if count >= 0:
        return ctypes.string_at(_buffer, count)
    return None if ctypes.get_errno() == errno.EAGAIN else b""


def peek_further(descriptor: int, most: int) -> bytes:
    """Return the first *most* bytes of what has come, and leave them there."""
    buffer = ctypes.create_string_buffer(most)
    return ctypes.string_at(buffer, max(0, _recv(descriptor, buffer, most, _PEEK)))


def count_unread(descriptor: int) -> int:
    """Return how many bytes have come and were not read."""
    count = ctypes.c_int(0)
    _ioctl(descriptor, termios.FIONREAD, ctypes.byref(count))
    return count.value


def discard(descriptor: int, most: int) -> int:
    """Throw away up to *most* bytes of what has come; return how many that were."""
    return max(0, _recv(descriptor, None, most, _DISCARD))


def send(descriptor: int, content: bytes) -> bool:
    """Return whether *content* could be sent at once, all of it."""
    return bool(_send(descriptor, content, len(content), _SEND) == len(content))


def send_the_last(descriptor: int, content: bytes) -> None:
    """Send *content*, as far as that is possible at once, and close; both go as one packet."""
    _send(descriptor, content, len(content), _SEND_WITH_WHAT_FOLLOWS)
    _close(descriptor)


def end_sending(descriptor: int) -> None:
    """Tell the other side that nothing more will come."""
    _shutdown(descriptor, socket.SHUT_WR)


class _Event(ctypes.Structure):
    _pack_ = 1 if platform.machine() == "x86_64" else 0  # as the kernel's own is
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class Poller:
    """What Gunicorn needs of a selector: it waits for sockets to become readable."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Begin to look at *fileobj*, of which *events* can only be `EVENT_READ`. Raises OSError."""
        return self._add(fileobj, select.EPOLLIN, events, data)

    def watch(self, fileobj: Any, data: Any) -> selectors.SelectorKey:
        """Begin to look at *fileobj*, and tell once of each arrival, whether it is read or not. Raises OSError."""
        return self._add(fileobj, select.EPOLLIN | select.EPOLLET, selectors.EVENT_READ, data)

    def _add(self, fileobj: Any, flags: int, events: int, data: Any) -> selectors.SelectorKey:
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        event = _Event(flags, descriptor)
        if _epoll_ctl(self._epoll.fileno(), _CTL_ADD, descriptor, ctypes.byref(event)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, errno.errorcode.get(number, "epoll_ctl"))
        key = self._keys[descriptor] = selectors.SelectorKey(fileobj, descriptor, events, data)
        return key

    def forget(self, key: selectors.SelectorKey) -> None:
        """Look no more at what *key* is of, which may be closed: then another one may have its descriptor."""
        if self._keys.get(key.fd) is key:
            del self._keys[key.fd]
            _epoll_ctl(self._epoll.fileno(), _CTL_DEL, key.fd, ctypes.byref(_Event()))

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Look at it no more. Raises KeyError if nobody did."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys.pop(descriptor)
        _epoll_ctl(self._epoll.fileno(), _CTL_DEL, descriptor, ctypes.byref(_Event()))
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return those that are readable, after *timeout* seconds at the latest."""
        ready = self._epoll.poll(timeout, max(1, len(self._keys)))
        return [(self._keys[descriptor], selectors.EVENT_READ) for descriptor, _ in ready if descriptor in self._keys]

    def close(self) -> None:
        """Look at nothing any more."""
        self._epoll.close()
        self._keys.clear()
