"""When a worker looks: at what the host agreed on, twenty times a second; at the store, when it is due."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace

import pytest

from tests.fakes import BROKEN, FakeLoader, FakeStore
from tests.server import wait_until
from wine_api.metrics import Metrics
from wine_api.response_times import ResponseTimes
from wine_api.serving.cache import ModelCache
from wine_api.serving.fleet import Fleet
from wine_api.serving.holder import ModelHolder
from wine_api.serving.ledger import Ledger
from wine_api.serving.refresher import Refresher, _Lookout
from wine_api.serving.rollout import LoadLimits, Rollout
from wine_api.spans import Spans


class Worker:
    """A worker that watches."""

    def __init__(self, tmp_path, store, ttl_seconds) -> None:
        self.fleet = Fleet(tmp_path / "state", "local")
        self.fleet.join()
        self.holder, self.loader = ModelHolder(), FakeLoader()
        self.rollout = Rollout(
            store=store,
            cache=ModelCache(tmp_path / "cache", tmp_path / "spare"),
            fleet=self.fleet,
            holder=self.holder,
            loader=self.loader,
            metrics=Metrics(),
            response_times=ResponseTimes(),
            spans=Spans(),
            limits=LoadLimits(seconds=5.0, max_bytes=1000),
            ledger=Ledger(tmp_path / "cache"),
        )
        self.refresher = Refresher(self.rollout, self.fleet, ttl_seconds)

    def serves(self, version):
        model = self.holder.current()
        return model is not None and model.version == version

    def stop(self):
        self.refresher.stop()
        self.fleet.leave()


pytestmark = pytest.mark.timeout(20)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Make the watchers look more often than in production; nothing else of them changes."""
    monkeypatch.setattr("wine_api.serving.refresher._WATCH_SECONDS", 0.005)
    monkeypatch.setattr("wine_api.serving.refresher._REPORT_SECONDS", 0.02)
    monkeypatch.setattr("wine_api.serving.refresher._FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr("wine_api.serving.refresher._MOST_RETRY_SECONDS", 0.1)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def start(tmp_path, store):
    """Starts a worker; all stop at the end."""
    Fleet(tmp_path / "state", "local").begin_run(1)
    workers = []

    def start(ttl_seconds=3600.0):
        worker = Worker(tmp_path, store, ttl_seconds)
        workers.append(worker)
        worker.refresher.start()
        return worker

    yield start
    for worker in workers:
        worker.stop()


def test_has_a_model_when_it_has_started(store, start):
    store.upload(b"a model", version="1.0")

    assert start().serves("1.0")


def test_starts_without_a_model_and_takes_the_first_that_comes(store, start):
    worker = start()

    store.upload(b"a model", version="1.0")

    wait_until(lambda: worker.serves("1.0"), "the model")


def test_starts_while_the_store_is_away_and_takes_its_model_when_it_is_back(store, start):
    store.upload(b"a model", version="1.0")
    store.go_away()
    worker = start()
    started_without = worker.holder.current() is None

    store.come_back()

    wait_until(lambda: worker.serves("1.0"), "the model")
    assert started_without


def test_takes_the_first_model_even_if_it_never_looks_for_new_ones(store, start):
    worker = start(ttl_seconds=0)

    store.upload(b"a model", version="1.0")

    wait_until(lambda: worker.serves("1.0"), "the model")


def test_a_broken_first_model_is_left_until_it_is_mended(store, start):
    store.upload(BROKEN)
    worker = start()

    store.upload(b"mended", version="1.0")

    wait_until(lambda: worker.serves("1.0"), "the mended model")


def test_looks_at_the_store_when_it_is_due(store, start):
    store.upload(b"old", version="1.0")
    worker = start(ttl_seconds=0.1)

    store.upload(b"new", version="2.0")

    wait_until(lambda: worker.serves("2.0"), "the new model")


def test_never_looks_if_it_is_told_so(store, start):
    store.upload(b"old", version="1.0")
    worker = start(ttl_seconds=0)
    store.upload(b"new", version="2.0")
    reported = worker.fleet.target_stamp()

    wait_for_reports(worker, 3)

    assert store.looks == 1
    assert worker.fleet.target_stamp() == reported
    assert worker.serves("1.0")


def test_does_not_look_before_it_is_due(store, start):
    store.upload(b"old", version="1.0")
    worker = start(ttl_seconds=3600)

    wait_for_reports(worker, 3)

    assert store.looks == 1


def wait_for_reports(worker, count):
    """Wait until the watcher has told the others *count* times how the worker is."""
    for _ in range(count):
        before = report_stamp(worker)
        wait_until(lambda before=before: report_stamp(worker) != before, "a report")


def report_stamp(worker):
    found = worker.fleet._status_path(worker.fleet.slot).stat()
    return found.st_ino, found.st_mtime_ns


def test_every_worker_follows_but_only_one_looks(store, start):
    store.upload(b"old", version="1.0")
    workers = [start(ttl_seconds=0.1), start(ttl_seconds=0.1), start(ttl_seconds=0.1)]

    store.upload(b"new", version="2.0")

    wait_until(lambda: all(worker.serves("2.0") for worker in workers), "the new model in all")
    assert store.downloads == 2


def test_another_worker_looks_when_the_lookout_is_gone(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(ttl_seconds=0.1), start(ttl_seconds=0.1)
    wait_until(lambda: store.looks > 1, "a look")
    first.stop()

    store.upload(b"new", version="2.0")

    wait_until(lambda: second.serves("2.0"), "the new model")


def test_keeps_its_model_while_the_store_is_away(store, start):
    store.upload(b"a model", version="1.0")
    worker = start(ttl_seconds=0.05)
    store.go_away()

    wait_until(lambda: worker.fleet.store().reachable is False, "the outage to be noticed")

    assert worker.serves("1.0")
    assert worker.fleet.all_have_a_model()


@pytest.mark.parametrize("stale", [False, True], ids=["later", "from the start"])
def test_a_store_that_is_away_is_looked_at_no_more_than_once_a_minute_for_each_host(
    store, start, monkeypatch, tmp_path, stale
):
    store.upload(b"a model", version="1.0")
    if stale:
        start().stop()
        store.go_away()
        Fleet(tmp_path / "state", "local").begin_run(1)
    monkeypatch.setattr("wine_api.serving.refresher._WATCH_SECONDS", 3600.0)  # the test is the clock
    worker = start()
    store.go_away()
    lookout = _Lookout(worker.rollout, worker.fleet, ttl_seconds=3600.0)
    minutes, now = 100, time.monotonic()
    monkeypatch.setattr("wine_api.serving.refresher.time", SimpleNamespace(monotonic=lambda: now))
    looks = store.looks

    for _ in range(60 * minutes):
        now += 1.0
        lookout.look_if_due()

    assert minutes / 2 <= store.looks - looks <= minutes
    assert worker.serves("1.0")


def test_a_worker_that_lost_its_model_takes_it_when_the_store_is_back(store, start, tmp_path):
    store.publish("1.0")
    store.promote("1.0")
    start()
    for kept in (tmp_path / "cache").glob("*/wine_quality_model.joblib"):
        kept.unlink()
    store.go_away()
    worker = start()
    started_without = worker.holder.current() is None

    store.come_back()

    wait_until(lambda: worker.serves("1.0"), "the model")
    assert started_without


def test_goes_on_watching_whatever_happens(store, start, caplog):
    caplog.set_level(logging.CRITICAL)
    store.upload(b"old", version="1.0")
    worker = start(ttl_seconds=0.05)
    store.away = RuntimeError("a bug")
    looks = store.looks
    wait_until(lambda: store.looks > looks + 1, "looks that fail")
    store.come_back()

    store.upload(b"new", version="2.0")

    wait_until(lambda: worker.serves("2.0"), "the new model")


def test_starting_never_raises(store, start, caplog):
    caplog.set_level(logging.CRITICAL)
    store.away = RuntimeError("a bug")

    worker = start()

    assert worker.holder.current() is None
    store.come_back()
    store.upload(b"a model", version="1.0")
    wait_until(lambda: worker.serves("1.0"), "the model")


def test_tells_the_others_how_it_is(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()

    (status,) = worker.fleet.workers()

    assert (status.version, status.generation, status.error) == ("1.0", 1, None)
    wait_for_reports(worker, 1)


def test_stopping_ends_its_threads(store, start):
    worker = start()

    before = set(threading.enumerate())
    worker.refresher.stop()

    looks = store.looks
    store.upload(b"a model", version="1.0")
    ended = before - set(threading.enumerate())
    assert "model-watcher" in {thread.name for thread in ended}
    assert store.looks == looks
