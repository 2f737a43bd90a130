"""The workers of a host, who agree on one model through files."""

from __future__ import annotations

import stat
import threading
import time

import pytest

from tests.server import wait_until
from wine_api.serving.fleet import Fleet, StoreStatus, WorkerStatus


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def join(folder):
    """Lets a worker join the host; all leave at the end. As in Gunicorn, the run has begun before."""
    Fleet(folder, "s3").begin_run(2)
    joined = []

    def join():
        fleet = Fleet(folder, "s3")
        fleet.join()
        joined.append(fleet)
        return fleet

    yield join
    for fleet in joined:
        fleet.leave()


def report(fleet, generation=0, *, pid=4711, response_times=None):
    """Tell the others what *fleet* has in use."""
    status = WorkerStatus(fleet.slot, pid, response_times=response_times or {})
    if generation:
        status = status.using(generation=generation, version="1.0", digest="abc", engine="fake", loaded_at=1.5)
    fleet.report(status)


def soon():
    return time.monotonic() + 0.05


# Membership


def test_workers_take_the_lowest_free_slot(join):
    first, second, third = join(), join(), join()

    assert [first.slot, second.slot, third.slot] == [0, 1, 2]


def test_a_new_worker_takes_the_slot_of_the_one_that_left(join):
    first, second = join(), join()
    first.leave()

    third = join()

    assert (second.slot, third.slot) == (1, 0)


def test_a_worker_that_joins_has_nothing_of_the_one_before(join):
    first = join()
    report(first, generation=1)
    first.leave()

    again = join()

    assert again.workers() == [WorkerStatus(0, 0)]


def test_only_the_living_are_shown(join):
    first, second = join(), join()
    report(first, generation=1)
    report(second, generation=1)

    first.leave()

    assert [worker.slot for worker in second.workers()] == [1]
    assert [*second.free_slots()] == [0]


def test_looking_at_the_slots_does_not_disturb_others_who_look(join):
    first, second = join(), join()
    report(first, generation=1)
    first.leave()

    seen_meanwhile = [[worker.slot for worker in second.workers()] for _ in second.free_slots()]

    assert seen_meanwhile == [[1]]


def test_workers_that_join_at_once_take_different_slots(folder):
    Fleet(folder, "s3").begin_run(8)
    fleets = [Fleet(folder, "s3") for _ in range(8)]
    joining = [threading.Thread(target=fleet.join) for fleet in fleets]

    for thread in joining:
        thread.start()
    for thread in joining:
        thread.join()

    slots = sorted(fleet.slot for fleet in fleets)
    for fleet in fleets:
        fleet.leave()
    assert slots == [0, 1, 2, 3, 4, 5, 6, 7]


def test_one_worker_is_the_lookout_until_it_leaves(join):
    first, second = join(), join()
    taken = [first.take_lookout(), second.take_lookout(), first.take_lookout()]
    first.leave()

    assert taken == [True, False, True]
    assert second.take_lookout() is True


# The target


def test_there_is_no_target_at_first(join):
    fleet = join()

    assert fleet.target() is None
    assert fleet.target_stamp() is None
    assert fleet.status().generation == 0


def test_every_worker_sees_the_target(join):
    first, second = join(), join()

    target = first.publish("abc", "1.0", "etag")

    assert second.target() == target
    assert (target.generation, target.digest, target.version, target.latest, target.stale) == (
        1,
        "abc",
        "1.0",
        "etag",
        False,
    )


def test_generations_count_up(join):
    fleet = join()

    generations = [fleet.publish(digest, "1.0", None).generation for digest in "aba"]

    assert generations == [1, 2, 3]


def test_the_stamp_changes_with_the_target(join):
    fleet = join()
    stamps = {fleet.target_stamp()}

    fleet.publish("a", "1.0", None)
    stamps.add(fleet.target_stamp())
    fleet.publish("b", "2.0", None)
    stamps.add(fleet.target_stamp())

    assert len(stamps) == 3
    assert fleet.target_stamp() in stamps


def test_a_stale_target_is_confirmed_without_a_new_generation(join):
    fleet = join()
    fleet.publish("abc", "1.0", None, stale=True)
    was_stale = fleet.status().stale

    fleet.confirm("etag")

    assert was_stale is True
    assert fleet.status().stale is False
    assert fleet.target().generation == 1
    assert fleet.target().latest == "etag"


def test_nothing_is_confirmed_before_there_is_a_target(join):
    fleet = join()

    fleet.confirm("etag")

    assert fleet.target() is None


def test_only_one_changes_the_target_at_a_time(join):
    first, second = join(), join()

    with first.changing(soon()) as changing, second.changing(soon()) as changing_too:
        assert (changing, changing_too) == (True, False)
    with second.changing(soon()) as changing:
        assert changing is True


def test_a_new_run_forgets_the_one_before(folder, join):
    fleet = join()
    fleet.publish("abc", "1.0", None)
    fleet.report_store(StoreStatus("s3", True, 1.0, 2.0))
    report(fleet, generation=1)
    fleet.leave()

    fleet.begin_run(1)

    assert fleet.target() is None
    assert fleet.store() == StoreStatus("s3")
    assert fleet.workers() == []


def test_what_is_agreed_on_is_private(folder, join):
    join()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# Readiness


def test_a_host_is_ready_when_all_that_the_run_began_with_have_a_model(join):
    first, second = join(), join()
    report(first, generation=1)
    ready = [first.all_have_a_model()]
    report(second)
    ready.append(first.all_have_a_model())
    report(second, generation=1)
    ready.append(first.all_have_a_model())

    assert ready == [False, False, True]


def test_nobody_is_ready_before_anybody_reports(join):
    assert join().all_have_a_model() is False


def test_a_host_that_was_ready_stays_so_while_a_worker_is_replaced(join):
    first, second = join(), join()
    report(first, generation=1)
    report(second, generation=1)
    assert first.all_have_a_model()
    second.leave()

    while_it_is_gone = first.all_have_a_model()
    join()
    while_it_loads = first.all_have_a_model()

    assert (while_it_is_gone, while_it_loads) == (True, True)


def test_a_new_worker_that_takes_requests_without_a_model_ends_readiness(join):
    first, second = join(), join()
    report(first, generation=1)
    report(second, generation=1)
    assert first.all_have_a_model()
    second.leave()

    report(join())

    assert first.all_have_a_model() is False


# Convergence


def test_waits_until_every_worker_has_the_generation(join):
    first, second = join(), join()
    report(first, generation=2)
    report(second, generation=1)
    later = threading.Timer(0.05, report, (second, 2))
    later.start()

    workers = first.wait_until_converged(2, time.monotonic() + 30)

    assert [worker.generation for worker in workers] == [2, 2]
    later.join()


def test_gives_up_at_the_deadline_and_says_who_has_what(join):
    first, second = join(), join()
    report(first, generation=2)
    report(second, generation=1)

    workers = first.wait_until_converged(2, soon())

    assert [worker.generation for worker in workers] == [2, 1]


def test_does_not_wait_for_a_worker_that_died(join):
    first, second = join(), join()
    report(first, generation=2)
    report(second, generation=1)
    later = threading.Timer(0.05, second.leave)
    later.start()

    workers = first.wait_until_converged(2, time.monotonic() + 30)

    assert [worker.slot for worker in workers] == [0]
    later.join()


def test_does_not_wait_for_a_worker_that_still_starts(join):
    first = join()
    report(first, generation=2)
    join()

    assert len(first.wait_until_converged(2, time.monotonic() + 30)) == 1


# What the host knows together


def test_the_status_counts_who_has_the_target(join):
    first, second = join(), join()
    first.publish("abc", "1.0", None)
    first.publish("def", "2.0", None)
    report(first, generation=2)
    report(second, generation=1)

    status = second.status()

    assert len(status.workers) == 2
    assert status.generation == 2
    assert status.converged == 1


def test_nobody_has_converged_without_a_target(join):
    fleet = join()
    report(fleet)

    assert fleet.status().converged == 0


def test_the_gauges_show_each_model_in_use_once(join):
    first, second = join(), join()
    first.publish("abc", "1.0", None)
    report(first, generation=1)
    report(second, generation=1)

    gauges = first.status().gauges

    assert gauges.models == [("1.0", "abc", "fake")]
    assert (gauges.workers, gauges.workers_converged, gauges.generation, gauges.loaded_at) == (2, 2, 1, 1.5)
    assert gauges.store_up is None


def test_response_times_of_all_workers_are_put_together(join):
    first, second = join(), join()
    report(first, response_times={10: 3})
    report(second, response_times={10: 1, 90: 2})

    assert first.status().response_times.count == 6


def test_a_look_at_the_store_is_known_to_all(join):
    first, second = join(), join()

    first.report_store(StoreStatus("s3", False, 1.0, 2.0, "timeout"))

    assert second.store() == StoreStatus("s3", False, 1.0, 2.0, "timeout")


def test_a_status_that_cannot_be_read_is_that_of_a_worker_that_starts(folder, join):
    fleet = join()
    (folder / "workers" / "0.json").write_bytes(b"{")

    assert fleet.workers() == [WorkerStatus(0, 0)]


def test_a_worker_that_waits_for_change_gets_its_turn(join):
    first, second = join(), join()
    order = []

    def change():
        with second.changing(time.monotonic() + 30):
            order.append("second")

    with first.changing(soon()):
        waiting = threading.Thread(target=change)
        waiting.start()
        order.append("first")
    wait_until(lambda: len(order) == 2, "the second to change")
    waiting.join()

    assert order == ["first", "second"]
