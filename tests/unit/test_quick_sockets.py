"""System calls on sockets that never wait."""

from __future__ import annotations

import socket

import pytest

from wine_api.quick_sockets import Poller


@pytest.fixture
def poller():
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def told(poller: Poller) -> list[str]:
    return [key.data for key, _ in poller.select(0)]


def test_what_is_watched_is_told_once_for_each_arrival(poller, pair):
    ours, theirs = pair
    poller.watch(ours, "it")
    theirs.send(b"a")
    first = [told(poller), told(poller)]
    theirs.send(b"b")

    assert [*first, told(poller), told(poller)] == [["it"], [], ["it"], []]


def test_what_came_before_it_was_watched_is_told_as_well(poller, pair):
    ours, theirs = pair
    theirs.send(b"a")
    poller.watch(ours, "it")

    assert told(poller) == ["it"]


def test_what_is_registered_is_told_until_it_is_read(poller, pair):
    ours, theirs = pair
    poller.register(ours, 1, "it")
    theirs.send(b"a")
    before = [told(poller), told(poller)]
    ours.recv(1)

    assert [*before, told(poller)] == [["it"], ["it"], []]


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

        assert told(poller) == ["new"]
