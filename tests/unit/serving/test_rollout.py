"""How a model comes into every worker of a host, and what happens when it does not."""

from __future__ import annotations

import threading

import pytest

from tests.fakes import BROKEN, FakeLoader, FakeStore, digest_of
from wine_api.errors import (
    ModelNotLoaded,
    ModelQuarantined,
    ModelRejected,
    ModelStoreUnavailable,
    ModelVersionNotFound,
    WorkersNotConverged,
)
from wine_api.metrics import Metrics
from wine_api.response_times import ResponseTimes
from wine_api.serving.cache import ModelCache
from wine_api.serving.fleet import Fleet
from wine_api.serving.holder import ModelHolder
from wine_api.serving.ledger import Ledger
from wine_api.serving.rollout import LoadLimits, Rollout
from wine_api.spans import Spans


class Worker:
    """One worker of the host, with all that is its own."""

    def __init__(self, tmp_path, store) -> None:
        self.fleet = Fleet(tmp_path / "state", "local")
        self.holder, self.loader, self.metrics = ModelHolder(), FakeLoader(), Metrics()
        self.rollout = Rollout(
            store=store,
            cache=ModelCache(tmp_path / "cache", tmp_path / "spare"),
            fleet=self.fleet,
            holder=self.holder,
            loader=self.loader,
            metrics=self.metrics,
            response_times=ResponseTimes(),
            spans=Spans(),
            limits=LoadLimits(seconds=5.0, max_bytes=1000),
            ledger=Ledger(tmp_path / "cache"),
        )

    @property
    def version(self):
        model = self.holder.current()
        return None if model is None else model.version

    def reloads(self, outcome, reason=""):
        return self.metrics.model_reloads.labels(outcome, reason)._value.get()


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def join(tmp_path, store):
    """Lets a worker join the host; it has no model yet."""
    Fleet(tmp_path / "state", "local").begin_run(2)
    workers = []

    def join():
        worker = Worker(tmp_path, store)
        worker.fleet.join()
        workers.append(worker)
        return worker

    yield join
    for worker in workers:
        worker.fleet.leave()


@pytest.fixture
def start(join):
    """Lets a worker join the host and take its first model."""

    def start():
        worker = join()
        worker.rollout.take_first()
        return worker

    return start


@pytest.fixture
def restart(tmp_path, start):
    """Ends the run, and begins the next one with one worker."""

    def restart(*workers):
        for worker in workers:
            worker.fleet.leave()
        Fleet(tmp_path / "state", "local").begin_run(1)
        return start()

    return restart


def follow(*workers):
    """Do what the watchers of the workers do twenty times a second."""
    for worker in workers:
        worker.rollout.follow()


# The first model


def test_the_first_worker_takes_the_stores_model(store, start):
    store.publish("1.0")
    store.promote("1.0")

    worker = start()

    assert worker.version == "1.0"
    assert worker.fleet.status().converged == 1
    assert worker.fleet.status().stale is False
    assert worker.reloads("loaded") == 1


def test_the_others_take_what_the_first_has_found(store, start):
    store.upload(b"a model")
    first, second = start(), start()

    assert second.version == first.version == digest_of(b"a model")[:12]
    assert store.downloads == 1


def test_a_worker_that_starts_later_takes_what_the_host_agreed_on_not_what_is_new(store, start):
    store.upload(b"old", version="1.0")
    start()
    store.upload(b"new", version="2.0")

    assert start().version == "1.0"


def test_without_a_model_a_worker_starts_all_the_same(start):
    worker = start()

    assert worker.version is None
    assert worker.fleet.target() is None
    assert worker.fleet.store().reachable is True
    with pytest.raises(ModelNotLoaded):
        worker.holder.require()


def test_only_the_first_of_the_workers_that_start_together_waits_for_a_store_that_is_away(store, start, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    store.go_away("timeout")

    first, second = start(), start()

    assert store.looks == 1
    assert (first.version, second.version) == (None, None)
    assert second.fleet.store().reachable is False
    assert second.fleet.store().error == "timeout"


def test_a_restart_serves_what_was_served_last_while_the_store_is_away(store, start, restart):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.go_away()

    again = restart(worker)

    assert again.version == "1.0"
    assert again.fleet.status().stale is True
    assert again.reloads("loaded", "stale") == 1


def test_a_restart_serves_what_was_served_last_when_the_stores_model_is_refused(store, start, restart):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.upload(BROKEN, version="2.0")

    again = restart(worker)

    assert again.version == "1.0"


def test_a_restart_takes_what_is_new(store, start, restart):
    store.upload(b"old", version="1.0")
    worker = start()
    store.upload(b"new", version="2.0")

    assert restart(worker).version == "2.0"


def test_a_model_from_the_cache_is_loaded_through_the_same_gates(store, start, restart):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.go_away()

    assert restart(worker).loader.loaded == ["1.0"]


# Polls


def test_a_poll_takes_what_is_new_when_it_is_due(store, start):
    store.upload(b"old", version="1.0")
    worker = start()
    store.upload(b"new", version="2.0")

    worker.rollout.poll(refresh=False)
    before_it_is_due = worker.version
    worker.rollout.poll(refresh=True)

    assert before_it_is_due == "1.0"
    assert worker.version == "2.0"


def test_a_poll_takes_the_first_model_at_once(store, start):
    worker = start()
    store.upload(b"a model", version="1.0")

    worker.rollout.poll(refresh=False)

    assert worker.version == "1.0"


def test_a_poll_that_finds_nothing_new_downloads_nothing(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()

    worker.rollout.poll(refresh=True)

    assert store.downloads == 1
    assert worker.fleet.target().generation == 1


def test_a_poll_confirms_a_model_from_the_cache(store, start, restart):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.go_away()
    again = restart(worker)
    store.come_back()

    again.rollout.poll(refresh=False)

    assert again.fleet.status().stale is False
    assert again.version == "1.0"


def test_a_poll_while_the_store_is_away_changes_nothing_but_what_is_known_of_it(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.go_away("timeout")

    with pytest.raises(ModelStoreUnavailable):
        worker.rollout.poll(refresh=True)

    assert worker.version == "1.0"
    assert worker.fleet.store().reachable is False
    assert worker.fleet.status().stale is False


def test_a_refused_model_is_not_fetched_again_until_it_changes(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.upload(BROKEN, version="2.0")
    with pytest.raises(ModelRejected):
        worker.rollout.poll(refresh=True)
    downloads = store.downloads

    worker.rollout.poll(refresh=True)
    after_a_second_look = store.downloads
    store.upload(b"mended", version="2.0")
    worker.rollout.poll(refresh=True)

    assert after_a_second_look == downloads
    assert worker.version == "2.0"


# Reloads


def test_a_reload_takes_what_is_new(store, start):
    store.upload(b"old", version="1.0")
    worker = start()
    store.upload(b"new", version="2.0")

    reloaded = worker.rollout.reload()

    assert reloaded.outcome == "loaded"
    assert reloaded.target.version == worker.version == "2.0"
    assert reloaded.target.generation == 2
    assert worker.reloads("loaded") == 2


def test_a_reload_says_when_nothing_is_new(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()

    reloaded = worker.rollout.reload()

    assert reloaded.outcome == "unchanged"
    assert reloaded.target.generation == 1
    assert store.downloads == 1
    assert worker.reloads("unchanged") == 1


def test_a_reload_takes_a_version_by_name(store, start):
    store.publish("1.0")
    store.publish("2.0")
    store.promote("2.0")
    worker = start()

    worker.rollout.reload("1.0")

    assert worker.version == "1.0"


def test_a_version_by_name_stays_until_the_store_changes(store, start):
    store.publish("1.0")
    store.publish("2.0")
    store.promote("2.0")
    worker = start()
    worker.rollout.reload("1.0")

    worker.rollout.poll(refresh=True)
    while_nothing_changed = worker.version
    store.upload(b"new", version="3.0")
    worker.rollout.poll(refresh=True)

    assert while_nothing_changed == "1.0"
    assert worker.version == "3.0"


def test_a_plain_reload_leaves_a_version_by_name(store, start):
    store.publish("1.0")
    store.publish("2.0")
    store.promote("2.0")
    worker = start()
    worker.rollout.reload("1.0")

    reloaded = worker.rollout.reload()

    assert reloaded.outcome == "loaded"
    assert worker.version == "2.0"


def test_a_reload_that_finds_nothing_changes_nothing(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()

    with pytest.raises(ModelVersionNotFound):
        worker.rollout.reload("3.0")

    assert worker.version == "1.0"
    assert worker.fleet.target().generation == 1
    assert worker.reloads("failed", "model_version_not_found") == 1


def test_a_reload_while_the_store_is_away_changes_nothing(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.go_away("forbidden")

    with pytest.raises(ModelStoreUnavailable):
        worker.rollout.reload()

    assert worker.version == "1.0"
    assert worker.reloads("failed", "forbidden") == 1


def test_a_reload_of_a_refused_model_changes_nothing(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.upload(BROKEN, version="2.0")

    with pytest.raises(ModelRejected):
        worker.rollout.reload()

    assert worker.version == "1.0"
    assert worker.fleet.target().generation == 1
    assert worker.reloads("refused", "not_a_model") == 1


def test_a_reload_of_a_quarantined_model_says_so(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()
    store.upload(BROKEN, version="2.0")
    with pytest.raises(ModelRejected):
        worker.rollout.reload()

    with pytest.raises(ModelQuarantined, match=r"2\.0"):
        worker.rollout.reload()

    assert worker.version == "1.0"


def test_a_model_that_is_replaced_while_it_is_fetched_is_not_taken(store, start):
    store.upload(b"a model", version="1.0")
    worker = start()
    looked_at = store.upload(b"new", version="2.0")
    store.latest = lambda: looked_at
    store.upload(b"newer", version="3.0")

    with pytest.raises(ModelStoreUnavailable):
        worker.rollout.reload()

    assert worker.version == "1.0"


def test_the_old_model_answers_while_the_new_one_loads(store, start):
    store.upload(b"old", version="1.0")
    worker = start()
    store.upload(b"new", version="2.0")
    seen = []
    load = worker.loader.load
    worker.loader.load = lambda *given, **more: seen.append(worker.version) or load(*given, **more)

    worker.rollout.reload()

    assert seen == ["1.0"]
    assert worker.version == "2.0"


def test_a_reload_answers_when_every_worker_has_it(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    stop = threading.Event()
    watching = threading.Thread(target=lambda: [follow(second) for _ in iter(lambda: stop.wait(0.01), True)])
    watching.start()

    reloaded = first.rollout.reload()

    stop.set()
    watching.join()
    assert [worker.version for worker in reloaded.workers] == ["2.0", "2.0"]
    assert second.version == "2.0"


def test_a_reload_names_the_workers_that_did_not_follow(store, start, monkeypatch):
    monkeypatch.setattr("wine_api.serving.rollout._CONVERGENCE_SECONDS", 0.05)
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")

    with pytest.raises(WorkersNotConverged, match="1 of 2 workers") as refusal:
        first.rollout.reload()

    assert [worker["converged"] for worker in refusal.value.members["workers"]] == [True, False]
    assert second.version == "1.0"


def test_a_reload_right_after_that_of_another_worker_loads_nothing_again(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    first.rollout.poll(refresh=True)
    downloads = store.downloads

    reloaded = second.rollout.reload()

    assert reloaded.outcome == "unchanged"
    assert store.downloads == downloads


def test_a_reload_that_must_wait_too_long_gives_up(store, start, tmp_path):
    store.upload(b"a model", version="1.0")
    first, second = start(), start()
    second.rollout._limits = LoadLimits(seconds=0.05, max_bytes=1000)

    with first.fleet.changing(0.0) as changing, pytest.raises(WorkersNotConverged):
        second.rollout.reload()

    assert changing is True


# Following


def test_a_worker_follows_what_the_host_agreed_on(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    first.rollout.poll(refresh=True)
    behind = second.rollout.is_behind

    follow(second)

    assert behind is True
    assert second.rollout.is_behind is False
    assert second.version == "2.0"
    assert store.downloads == 2


def test_a_worker_that_cannot_follow_says_why_and_keeps_its_model(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    second.loader.fault = ModelRejected("trial", "crashed", "The model crashed.")
    first.rollout.poll(refresh=True)

    follow(second)

    assert second.version == "1.0"
    assert second.rollout.is_behind is True
    assert [worker.error for worker in first.fleet.workers()] == [None, "crashed"]


def test_a_worker_that_could_not_follow_can_try_again(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    second.loader.fault = ModelRejected("trial", "crashed", "The model crashed.")
    first.rollout.poll(refresh=True)
    follow(second)
    second.loader.fault = None

    follow(second)

    assert second.version == "2.0"
    assert [worker.error for worker in first.fleet.workers()] == [None, None]


def test_a_model_that_the_cache_lost_is_fetched_again(store, start, join, tmp_path):
    store.publish("1.0")
    store.promote("1.0")
    start()
    for kept in (tmp_path / "cache").glob("*/wine_quality_model.joblib"):
        kept.unlink()

    worker = start()

    assert worker.version == "1.0"


def test_a_model_that_is_nowhere_any_more_is_not_replaced_by_another(store, start, tmp_path):
    store.upload(b"old", version="1.0")
    start()
    for kept in (tmp_path / "cache").glob("*/wine_quality_model.joblib"):
        kept.unlink()
    store.upload(b"new", version="1.0")

    worker = start()

    assert worker.version is None
    assert worker.rollout.is_behind is True


def test_a_worker_loads_what_another_is_about_to_bring_so_that_both_have_it_at_once(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    meanwhile(first, second.rollout.prepare)

    first.rollout.poll(refresh=True)

    assert (second.version, second.loader.loaded) == ("1.0", ["1.0", "2.0"])
    follow(second)
    assert (second.version, second.loader.loaded) == ("2.0", ["1.0", "2.0"])


def test_a_worker_forgets_what_did_not_come(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    first.loader.fault = ModelRejected("golden", "differs", "It is another model.")
    meanwhile(first, second.rollout.prepare)
    with pytest.raises(ModelRejected):
        first.rollout.poll(refresh=True)
    second.rollout.prepare()
    store.upload(b"better", version="3.0")
    first.loader.fault = None
    meanwhile(first, lambda: None)

    first.rollout.poll(refresh=True)
    follow(second)

    assert second.version == "3.0"
    assert second.loader.loaded == ["1.0", "2.0", "3.0"]


def test_a_worker_that_finds_what_comes_refused_waits_for_the_word_of_the_host(store, start):
    store.upload(b"old", version="1.0")
    first, second = start(), start()
    store.upload(b"new", version="2.0")
    second.loader.fault = ModelRejected("trial", "crashed", "The model crashed.")
    meanwhile(first, second.rollout.prepare)

    first.rollout.poll(refresh=True)

    assert [worker.error for worker in first.fleet.workers()] == [None, None]
    second.loader.fault = None
    follow(second)
    assert second.version == "2.0"


def meanwhile(worker, act):
    """Let *act* happen while *worker* loads a model, once it is announced."""
    load = type(worker.loader).load

    def load_and_act(artifact, deadline, *, survived):
        def survived_and_act():
            survived()
            act()

        return load(worker.loader, artifact, deadline, survived=survived_and_act)

    worker.loader.load = load_and_act
