"""Every metric of the service and its labels, and how several workers count together.

Counters and histograms live in files, one set a worker slot, that any worker can sum. What is true of the whole host
(the model in use, the workers that have it, the store) is not counted but asked for at each scrape.
A label never holds a request id, a key or a path.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from wine_api import __version__

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_MODEL_SECONDS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class _CountingProcess:
    """Which set of counter files this process writes: its worker slot, not its pid.

    A new worker goes on with the files of the dead one whose slot it took. So counters never fall, and the number of
    files does not grow with restarts. prometheus_client asks for it at each count, hence one object a process.
    """

    name = "master"


def count_in_files(folder: Path) -> None:
    """Make all metrics of this process and its children count in files under *folder*, which exists.

    Must come before the first `Metrics` of the process.
    """
    os.environ[_FOLDER_VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: _CountingProcess.name)


def use_slot(slot: int) -> None:
    """Count as worker *slot* from now on; gauges that its last owner left behind are dropped."""
    _CountingProcess.name = str(slot)
    forget_gauges_of(slot)


def forget_gauges_of(slot: int) -> None:
    """Drop the gauges of a dead worker, as what it was doing is over; its counters stay."""
    if _counting_folder():
        mark_process_dead(slot)


def _counting_folder() -> str | None:
    return os.environ.get(_FOLDER_VARIABLE)


@dataclass(frozen=True, slots=True)
class HostGauges:
    """What is true of the whole host at one moment.

    *models* holds (version, digest, engine) of each model that a worker has in use: more than one only during a swap.
    *loaded_at* is in seconds since the epoch. *store_up* is None before the first look.
    """

    models: Sequence[tuple[str, str, str]]
    generation: int
    loaded_at: float | None
    stale: bool
    workers: int
    workers_converged: int
    store_up: bool | None


class _HostCollector(Collector):
    """Asks for the gauges of the host when they are scraped."""

    def __init__(self, ask: Callable[[], HostGauges]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        host = self._ask()
        info = GaugeMetricFamily(
            "wine_model_info", "The model in use; more than one during a swap.", labels=("version", "digest", "engine")
        )
        for labels in host.models:
            info.add_metric(labels, 1)
        yield info
        yield GaugeMetricFamily("wine_model_generation", "Counts the models that this host agreed on.", host.generation)
        if host.loaded_at is not None:
            yield GaugeMetricFamily(
                "wine_model_loaded_timestamp_seconds", "When the model in use was loaded.", host.loaded_at
            )
        yield GaugeMetricFamily(
            "wine_model_stale", "1 while the model comes from the cache and the store has not confirmed it.", host.stale
        )
        yield GaugeMetricFamily("wine_workers", "Workers that are alive.", host.workers)
        yield GaugeMetricFamily(
            "wine_workers_converged", "Workers that have the model the host agreed on.", host.workers_converged
        )
        if host.store_up is not None:
            yield GaugeMetricFamily("wine_store_up", "1 if the store answered the last look.", host.store_up)


class _ProcessCollector(Collector):
    """What never changes while the service runs."""

    def __init__(self) -> None:
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("wine_start_time_seconds", "When the service started.", self._started)
        build = GaugeMetricFamily("wine_build_info", "What runs.", labels=("version", "python", "scikit_learn"))
        build.add_metric((__version__, platform.python_version(), installed_version("scikit-learn")), 1)
        yield build


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        # A registry of its own: the default one can hold the metrics of one application a process only.
        self.registry = registry = CollectorRegistry()
        self.predictions = Counter(
            "wine_predictions",
            "Prediction requests; outcome is success, invalid, unavailable or error.",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self.prediction_rows = Counter("wine_prediction_rows", "Wines predicted.", registry=registry)
        self.model_seconds = Histogram(
            "wine_model_seconds", "Time in the model, a request.", buckets=_MODEL_SECONDS, registry=registry
        )
        self.batch_rows = Histogram("wine_batch_rows", "Rows of a batch.", buckets=_BATCH_ROWS, registry=registry)
        self.predicted_label = Counter(
            "wine_predicted_label", "Wines by predicted label.", ("label",), registry=registry
        )
        self.confidence = Histogram(
            "wine_confidence", "Confidence of the predictions.", buckets=_CONFIDENCE, registry=registry
        )
        self.errors = Counter("wine_errors", "Error answers by code.", ("code",), registry=registry)
        self.requests_in_flight = Gauge(
            "wine_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self.model_reloads = Counter(
            "wine_model_reloads",
            "Attempts to take a model into use; outcome is loaded, unchanged, refused or failed.",
            ("outcome", "reason"),
            registry=registry,
        )
        self.model_rollbacks = Counter("wine_model_rollbacks", "Rollbacks to the model before.", registry=registry)
        self.engine_fallbacks = Counter(
            "wine_engine_fallbacks",
            "Models that a worker took into use without a faster engine, by reason.",
            ("reason",),
            registry=registry,
        )
        self._host: list[Collector] = [_ProcessCollector()]

    def ask_host(self, ask: Callable[[], HostGauges]) -> None:
        """Show what *ask* returns at each scrape."""
        self._host.append(_HostCollector(ask))

    def count_answers(
        self, labels: Iterable[object], confidences: npt.NDArray[np.float64] | None, seconds: float
    ) -> None:
        """Count the predictions of one request, which spent *seconds* in the model."""
        counts: dict[object, int] = {}
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
        for label, count in counts.items():
            # A regressor's answers are endless; as a label they are worth their nearest grade.
            name = str(round(label)) if isinstance(label, float) else str(label)
            self.predicted_label.labels(name).inc(count)
        self.prediction_rows.inc(sum(counts.values()))
        self.model_seconds.observe(seconds)
        if confidences is not None:
            _observe_all(self.confidence, confidences)

    def render(self, accept: str, names: Sequence[str] = ()) -> tuple[bytes, str]:
        """Write all metrics, summed over all workers, in the format that *accept* asks for.

        Returns the text and its content type. With *names*, only metrics (or samples) of those names.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_Scrape(self._collectors(), frozenset(names))), content_type

    def _collectors(self) -> list[Collector]:
        folder = _counting_folder()
        counted: Collector = MultiProcessCollector(None, folder) if folder else self.registry
        return [counted, *self._host]


class _Scrape(Collector):
    """The metrics of some collectors, by name if names are given."""

    def __init__(self, collectors: Iterable[Collector], names: frozenset[str]) -> None:
        self._collectors = collectors
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            for metric in collector.collect():
                if not self._names or metric.name in self._names or self._names & {s.name for s in metric.samples}:
                    yield metric


def _observe_all(histogram: Histogram, observed: npt.NDArray[np.float64]) -> None:
    """Observe many values at once.

    prometheus_client takes one at a time, which for a batch of 10,000 costs more than the predictions. Its histogram
    is a sum and a count a bucket (each not yet cumulated), so those are raised directly.
    """
    if len(observed) == 1:
        histogram.observe(float(observed[0]))
        return
    bounds = np.asarray(histogram._upper_bounds)
    counts = np.bincount(np.searchsorted(bounds, observed, side="left"), minlength=len(bounds))
    histogram._sum.inc(float(observed.sum()))
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(int(count))
