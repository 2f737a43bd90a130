"""How long requests took over the last minutes, small enough to share between workers."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# Buckets grow by 10 %, from 10 µs up: a percentile is at most 5 % off, and 5 minutes fit into some 150 numbers.
_GROWTH = math.log(1.1)
_SMALLEST_SECONDS = 1e-5
_SLICE_SECONDS = 30.0
_SLICES = 10
_MOST_UNSORTED = 1000

BucketCounts = Mapping[int, int]


def _bucket(seconds: float) -> int:
    return max(0, math.ceil(math.log(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS) / _GROWTH))


def _middle_ms(bucket: int) -> float:
    return 1000 * _SMALLEST_SECONDS * math.exp((bucket - 0.5) * _GROWTH)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The response times of some requests, in milliseconds; None where there were none."""

    count: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class ResponseTimes:
    """The response times of this worker over the last five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._recorded: deque[tuple[float, float]] = deque()
        self._slices: deque[tuple[int, Counter[int]]] = deque(maxlen=_SLICES)

    def record(self, seconds: float) -> None:
        """Count one request that took *seconds*."""
        # Sorted later, many at once: in the middle of a request that takes several times as long.
        self._recorded.append((self._clock(), seconds))
        if len(self._recorded) >= _MOST_UNSORTED:
            self._sort()

    def counts(self) -> dict[int, int]:
        """Return how many requests fell into each bucket."""
        self._sort()
        oldest = int(self._clock() / _SLICE_SECONDS) - _SLICES
        total: Counter[int] = Counter()
        with self._lock:
            for number, counts in self._slices:
                if number > oldest:
                    total.update(counts)
        return dict(total)

    def _sort(self) -> None:
        """Put what was recorded into its slice and bucket."""
        with self._lock:
            for _ in range(len(self._recorded)):
                moment, seconds = self._recorded.popleft()
                number = int(moment / _SLICE_SECONDS)
                if not self._slices or self._slices[-1][0] < number:
                    self._slices.append((number, Counter()))
                self._slices[-1][1][_bucket(seconds)] += 1


def percentiles(parts: Iterable[BucketCounts]) -> Percentiles:
    """Put the counts of several workers together and read the percentiles off them."""
    total: Counter[int] = Counter()
    for part in parts:
        total.update(part)
    count = sum(total.values())
    return Percentiles(count, *(_quantile(total, count, share) for share in (0.50, 0.95, 0.99)))


def _quantile(total: Counter[int], count: int, share: float) -> float | None:
    if not count:
        return None
    rank = math.ceil(share * count)
    seen = 0
    for bucket in sorted(total):
        seen += total[bucket]
        if seen >= rank:
            return round(_middle_ms(bucket), 3)
    raise AssertionError("the counts add up to their sum")
