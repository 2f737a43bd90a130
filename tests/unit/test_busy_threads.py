"""How busy threads are decides how many of them take requests in an overload."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

from wine_api.busy_threads import BusyThreads


@contextmanager
def thread(threads: BusyThreads, work):
    """Run *work* in a thread that *threads* look at; it gets the event that ends it."""
    over, ready = threading.Event(), threading.Event()

    def run():
        threads.add()
        ready.set()
        work(over)

    running = threading.Thread(target=run)
    running.start()
    ready.wait()
    yield
    over.set()
    running.join()


def compute(over: threading.Event):
    while not over.is_set():
        sum(range(1000))


def wait(over: threading.Event):
    over.wait()


def share_of(*works) -> float:
    threads = BusyThreads()
    with thread(threads, works[0]), thread(threads, works[1]):
        threads.begin()
        time.sleep(0.2)  # what is measured is a share of time
        return threads.share()


def test_one_that_computes_and_one_that_waits_are_one():
    assert 0.5 < share_of(compute, wait) < 1.5


def test_who_only_waits_is_not_busy():
    assert share_of(wait, wait) < 0.2


def test_without_threads_nobody_is_busy():
    threads = BusyThreads()
    threads.begin()

    assert threads.share() == 0
