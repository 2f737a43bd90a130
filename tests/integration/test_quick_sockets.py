"""Calls that never wait do what Python's own do."""

from __future__ import annotations

import selectors
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from wine_api import quick_sockets


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def ends(listener):
    """The client's end of a connection and ours."""
    with socket.create_connection(listener.getsockname()) as client:
        [descriptor] = quick_sockets.accept(listener, 1)
        with quick_sockets.Socket(fileno=descriptor) as ours:
            yield client, ours


@pytest.fixture
def poller():
    poller = quick_sockets.Poller()
    yield poller
    poller.close()


def arrived(connection: socket.socket) -> int:
    """Wait until something has come on *connection*; return where."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        assert selector.select(10)
    return connection.fileno()


def test_all_who_wait_are_accepted_but_no_more_than_asked_for(listener):
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    accepted = [quick_sockets.accept(listener, 2), quick_sockets.accept(listener, 2), quick_sockets.accept(listener, 2)]

    assert [len(descriptors) for descriptors in accepted] == [2, 1, 0]
    for each in [*clients, *(socket.socket(fileno=descriptor) for some in accepted for descriptor in some)]:
        each.close()


def test_what_is_looked_at_stays_there(ends):
    client, ours = ends
    nothing_yet = quick_sockets.peek(ours.fileno())
    client.sendall(b"abc\0def")
    looks = [quick_sockets.peek(arrived(ours)) for _ in range(2)]

    assert nothing_yet is None
    assert looks == [b"abc\0def"] * 2
    assert ours.recv(10) == b"abc\0def"


def test_a_look_sees_that_nothing_will_come(ends):
    client, ours = ends
    client.shutdown(socket.SHUT_WR)

    assert quick_sockets.peek(arrived(ours)) == b""


def test_a_look_sees_no_more_than_4_kib(ends):
    client, ours = ends
    client.sendall(b"x" * 5000)

    assert quick_sockets.peek(arrived(ours)) == b"x" * 4096


def test_a_further_look_sees_as_much_as_has_come(ends):
    client, ours = ends
    client.sendall(b"x" * 5000)

    assert [quick_sockets.peek_further(arrived(ours), most) for most in (4999, 6000)] == [b"x" * 4999, b"x" * 5000]
    assert len(ours.recv(6000)) == 5000
    assert quick_sockets.peek_further(ours.fileno(), 10) == b""


def test_what_is_thrown_away_is_counted(ends):
    client, ours = ends
    client.sendall(b"abcdef")

    assert quick_sockets.discard(arrived(ours), 4) == 4
    assert ours.recv(10) == b"ef"
    assert quick_sockets.discard(ours.fileno(), 4) == 0


def test_what_is_sent_arrives_and_the_end_after_it(ends):
    client, ours = ends

    assert quick_sockets.send(ours.fileno(), b"first ")
    quick_sockets.send_the_last(ours.detach(), b"last")
    received = b""
    while part := client.recv(100):
        received += part
    assert received == b"first last"


def test_what_is_held_is_sent_when_it_is_released_and_what_is_dropped_is_not(ends):
    client, ours = ends
    ours.hold()
    ours.sendall(b"dropped")
    ours.drop()
    ours.hold()
    ours.sendall(b"first ")
    ours.sendall(bytearray(b"second "))
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    ours.release()
    ours.release()  # of nothing
    ours.sendall(b"third")
    ours.close()

    client.setblocking(True)
    with client.makefile("rb") as received:
        assert received.read() == b"first second third"


def test_more_than_can_be_sent_at_once_is_released_as_the_client_takes_it(ends):
    client, ours = ends
    ours.hold()
    ours.sendall(b"x" * 20_000_000)
    with ThreadPoolExecutor(1) as threads:
        released = threads.submit(ours.release)
        with client.makefile("rb") as received:
            assert received.read(20_000_000) == b"x" * 20_000_000
        released.result()


def test_a_client_that_has_left_is_told_of_when_something_is_released(ends):
    client, ours = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leave with a reset
    client.close()
    arrived(ours)
    ours.hold()
    ours.sendall(b"x")

    with pytest.raises(OSError, match="send"):
        ours.release()


def test_a_client_that_takes_nothing_holds_nobody_up(ends):
    _, ours = ends

    assert not quick_sockets.send(ours.fileno(), b"x" * 100_000_000)


def test_a_client_that_has_left_raises_nothing(ends):
    client, ours = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leave with a reset
    client.close()

    assert quick_sockets.peek(arrived(ours)) == b""
    assert not quick_sockets.send(ours.fileno(), b"x")
    with pytest.raises(OSError, match="getpeername"):
        ours.getpeername()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_clients_address_is_pythons(address):
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()[:2]) as client:
            [descriptor] = quick_sockets.accept(listener, 1)
            with quick_sockets.Socket(fileno=descriptor) as ours:
                assert ours.getpeername() == client.getsockname()


def test_a_socket_waits_or_not_as_it_is_told(ends):
    client, ours = ends
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    ours.setblocking(True)
    client.sendall(b"a")
    assert ours.recv(1) == b"a"
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(1)


def test_a_poller_tells_what_is_readable_until_it_looks_no_more(poller, ends):
    client, ours = ends
    poller.register(ours, selectors.EVENT_READ, "data")
    calm = poller.select(0)
    client.sendall(b"a")
    ready = poller.select(10)
    poller.unregister(ours)

    assert calm == []
    assert [(key.fileobj, key.data) for key, _ in ready] == [(ours, "data")]
    assert poller.select(0) == []
    with pytest.raises(KeyError):
        poller.unregister(ours)


def test_a_poller_refuses_what_is_no_socket(poller):
    with pytest.raises(OSError, match="EBADF"):
        poller.register(123456, selectors.EVENT_READ)


def told(poller: quick_sockets.Poller, *, soon: bool) -> list[str]:
    return [key.data for key, _ in poller.select(10 if soon else 0)]


def test_what_is_watched_is_told_once_for_each_arrival(poller, ends):
    client, ours = ends
    poller.watch(ours, "it")
    client.sendall(b"a")
    first = [told(poller, soon=True), told(poller, soon=False)]
    client.sendall(b"b")

    assert [*first, told(poller, soon=True), told(poller, soon=False)] == [["it"], [], ["it"], []]


def test_what_came_before_it_was_watched_is_told_as_well(poller, ends):
    client, ours = ends
    client.sendall(b"a")
    poller.watch(ours, "it")

    assert told(poller, soon=True) == ["it"]


def test_what_is_registered_is_told_until_it_is_read(poller, ends):
    client, ours = ends
    poller.register(ours, selectors.EVENT_READ, "it")
    client.sendall(b"a")
    before = [told(poller, soon=True), told(poller, soon=True)]
    ours.recv(1)

    assert [*before, told(poller, soon=False)] == [["it"], ["it"], []]


def test_to_forget_a_closed_one_leaves_alone_who_has_its_descriptor_now(poller):
    old, old_client = socket.socketpair()
    descriptor, key = old.fileno(), poller.watch(old, "old")
    old.close()
    new, client = socket.socketpair()
    with old_client, new, client:
        assert descriptor in (new.fileno(), client.fileno())
        reused, other = (new, client) if new.fileno() == descriptor else (client, new)
        poller.watch(reused, "new")
        poller.forget(key)
        other.send(b"a")

        assert told(poller, soon=True) == ["new"]
