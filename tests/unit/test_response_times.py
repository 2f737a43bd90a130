"""Response times: percentiles over the last five minutes, from few numbers."""

from __future__ import annotations

import json

import pytest

from wine_api.response_times import Percentiles, ResponseTimes, percentiles


class Clock:
    """A clock that goes when it is told to."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def times(clock):
    return ResponseTimes(clock)


def test_there_are_no_percentiles_of_nothing(times):
    assert percentiles([times.counts()]) == Percentiles(0, None, None, None)


def test_one_request_is_every_percentile(times):
    times.record(0.2)

    found = percentiles([times.counts()])

    assert found.count == 1
    assert found.p50_ms == found.p95_ms == found.p99_ms == pytest.approx(200, rel=0.05)


@pytest.mark.parametrize("seconds", [2e-5, 1e-4, 0.0123, 1.0, 59.0, 3600.0])
def test_a_percentile_is_at_most_five_percent_off(times, seconds):
    times.record(seconds)

    assert percentiles([times.counts()]).p50_ms == pytest.approx(1000 * seconds, rel=0.05)


@pytest.mark.parametrize("seconds", [0.0, -0.001, 1e-12])
def test_no_time_at_all_is_still_a_request(times, seconds):
    times.record(seconds)

    assert percentiles([times.counts()]).count == 1


def test_percentiles_split_the_requests(times):
    for number in range(1, 101):
        times.record(number / 1000)

    found = percentiles([times.counts()])

    assert found.count == 100
    assert found.p50_ms == pytest.approx(50, rel=0.06)
    assert found.p95_ms == pytest.approx(95, rel=0.06)
    assert found.p99_ms == pytest.approx(99, rel=0.06)


def test_workers_are_put_together(clock):
    fast, slow = ResponseTimes(clock), ResponseTimes(clock)
    fast.record(0.001)
    slow.record(1.0)
    slow.record(1.0)

    found = percentiles([fast.counts(), slow.counts(), {}])

    assert found.count == 3
    assert found.p50_ms == pytest.approx(1000, rel=0.05)


def test_requests_are_forgotten_after_five_minutes(times, clock):
    times.record(1.0)
    clock.now += 200
    times.record(2.0)
    clock.now += 130

    found = percentiles([times.counts()])

    assert found.count == 1
    assert found.p50_ms == pytest.approx(2000, rel=0.05)


def test_a_quiet_worker_forgets_too(times, clock):
    times.record(1.0)
    clock.now += 3600

    assert times.counts() == {}


def test_what_is_shared_stays_small(times, clock):
    for number in range(10_000):
        clock.now += 0.01
        times.record(1e-5 * 1.001**number)

    assert len(json.dumps(times.counts())) < 5000
