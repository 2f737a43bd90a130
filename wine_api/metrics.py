"""Every metric of the service and its labels, and how several workers count together.

Counters and histograms live in files, one set a worker slot, that any worker can sum. What is true of the whole host
(the model in use, the workers that have it, the store) is not counted but asked for at each scrape.
A label never holds a request id, a key or a path.
"""

from __future__ import annotations

import collections
import contextlib
import os
import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from wine_api import __version__, slot_values

Label = int | float | str

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_MODEL_SECONDS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def count_in_files(folder: Path) -> None:
    """Make all metrics of this process and its children count in files under *folder*, which exists.

    Must come before the first `Metrics` of the process.
    """
    os.environ[_FOLDER_VARIABLE] = str(folder)
    slot_values.use_folder(folder)
    values.ValueClass = slot_values.SlotValue


def use_slot(slot: int) -> None:
    """Count as worker *slot* from now on, not by pid.

    A new worker goes on with the files of the dead one whose slot it took: so counters never fall, and the number of
    files does not grow with restarts. Gauges that the last owner left behind are dropped.
    """
    forget_gauges_of(slot)
    if _counting_folder():
        slot_values.use_process(str(slot))


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
    Moments are in seconds since the epoch. *store_up* is None before the first look. *worker_memory* is in bytes, by
    slot.
    """

    models: Sequence[tuple[str, str, str]] = ()
    generation: int = 0
    loaded_at: float | None = None
    created_at: float | None = None
    stale: bool = False
    workers: int = 0
    workers_converged: int = 0
    workers_configured: int = 0
    worker_threads: int = 0
    worker_memory: Mapping[int, int] = field(default_factory=dict)
    store_up: bool | None = None
    store_checked_at: float | None = None


Samples = Mapping[tuple[str, ...], float | None]


@dataclass(frozen=True, slots=True)
class _HostMetric:
    """A gauge of the host: its *samples* by the values of its *labels*; what is None is not known yet, nor shown."""

    name: str
    doc: str
    samples: Callable[[HostGauges], Samples]
    labels: tuple[str, ...] = ()


def _only(value: Callable[[HostGauges], float | None]) -> Callable[[HostGauges], Samples]:
    """Return the samples of a metric without labels."""
    return lambda host: {(): value(host)}


_HOST_METRICS = (
    _HostMetric(
        "wine_model_info",
        "The model in use; more than one during a swap.",
        lambda host: dict.fromkeys(host.models, 1),
        ("version", "digest", "engine"),
    ),
    _HostMetric(
        "wine_model_generation",
        "Counts the models that this host agreed on; 0 before the first.",
        _only(lambda host: host.generation),
    ),
    _HostMetric(
        "wine_model_loaded_timestamp_seconds", "When the model in use was loaded.", _only(lambda host: host.loaded_at)
    ),
    _HostMetric(
        "wine_model_created_timestamp_seconds",
        "When the model in use was trained, as its card says; absent without a card.",
        _only(lambda host: host.created_at),
    ),
    _HostMetric(
        "wine_model_stale",
        "1 while the model comes from the cache and the store has not confirmed it.",
        _only(lambda host: host.stale),
    ),
    _HostMetric("wine_workers", "Workers that are alive.", _only(lambda host: host.workers)),
    _HostMetric(
        "wine_workers_converged",
        "Workers that have the model the host agreed on.",
        _only(lambda host: host.workers_converged),
    ),
    _HostMetric(
        "wine_workers_configured", "Workers that there should be.", _only(lambda host: host.workers_configured)
    ),
    _HostMetric(
        "wine_worker_threads", "Requests that one worker works on at a time.", _only(lambda host: host.worker_threads)
    ),
    _HostMetric(
        "wine_worker_resident_memory_bytes",
        "Resident memory of each worker, by its slot; what workers share is in each.",
        lambda host: {(str(slot),): size for slot, size in host.worker_memory.items()},
        ("worker",),
    ),
    _HostMetric("wine_store_up", "1 if the store answered the last look.", _only(lambda host: host.store_up)),
    _HostMetric(
        "wine_store_checked_timestamp_seconds",
        "When the store was last looked at.",
        _only(lambda host: host.store_checked_at),
    ),
)


class _HostCollector(Collector):
    """Asks for the gauges of the host when they are scraped."""

    def __init__(self, ask: Callable[[], HostGauges]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        host = self._ask()
        for metric in _HOST_METRICS:
            family = GaugeMetricFamily(metric.name, metric.doc, labels=metric.labels)
            for labels, value in metric.samples(host).items():
                if value is not None:
                    family.add_metric(labels, value)
            if family.samples:
                yield family


class _ProcessCollector(Collector):
    """What never changes while the service runs."""

    LABELS = ("version", "python", "scikit_learn")

    def __init__(self) -> None:
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("wine_start_time_seconds", "When the service started.", self._started)
        build = GaugeMetricFamily("wine_build_info", "What runs; always 1.", labels=self.LABELS)
        build.add_metric((__version__, platform.python_version(), installed_version("scikit-learn")), 1)
        yield build


class _CountedCollector(Collector):
    """The counters and histograms of all workers, from their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        # The file of a worker that starts just now is empty for a moment, which prometheus_client cannot read.
        files = [str(path) for path in self._folder.glob("*.db") if _size(path)]
        return MultiProcessCollector.merge(files)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # the gauges of a worker that is gone
        return path.stat().st_size
    return 0


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
        self.rate_limit_fallbacks = Counter(
            "wine_rate_limit_fallbacks",
            "Requests that were counted by the host alone, or not at all, as Redis or the host's counters were away.",
            registry=registry,
        )
        self.engine_fallbacks = Counter(
            "wine_engine_fallbacks",
            "Models that a worker took into use without a faster engine, by reason.",
            ("reason",),
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "wine_log_lines_dropped", "Log lines that nobody took in time.", registry=registry
        )
        self._label_numbers: dict[int | str, Number] = {}
        self._host: list[Collector] = [_ProcessCollector()]

    def ask_host(self, ask: Callable[[], HostGauges]) -> None:
        """Show what *ask* returns at each scrape."""
        self._host.append(_HostCollector(ask))

    def count_answers(
        self, labels: Sequence[Label], confidences: npt.NDArray[np.float64] | None, seconds: float
    ) -> None:
        """Count the predictions of one request, which spent *seconds* in the model."""
        if len(labels) == 1:
            self._number_of(_counted_as(labels[0])).inc(1)
        else:
            for label, count in collections.Counter(map(_counted_as, labels)).items():
                self._number_of(label).inc(count)
        number_of(self.prediction_rows).inc(len(labels))
        observe(self.model_seconds, seconds)
        if confidences is not None:
            _observe_all(self.confidence, confidences)

    def _number_of(self, label: int | str) -> Number:
        # Looked up once: prometheus_client takes longer to find a counter than to raise it.
        number = self._label_numbers.get(label)
        if number is None:
            number = self._label_numbers[label] = number_of(self.predicted_label.labels(label))
        return number

    def render(self, accept: str, names: Sequence[str] = ()) -> tuple[bytes, str]:
        """Write all metrics, summed over all workers, in the format that *accept* asks for.

        Returns the text and its content type. With *names*, only metrics (or samples) of those names.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_Scrape(self._collectors(), frozenset(names))), content_type

    def describe(self) -> list[Description]:
        """Return what is told of each metric, by name."""
        counted = [_describe(metric) for metric in self.counted()]
        host = [Description(metric.name, "gauge", metric.labels, metric.doc) for metric in _HOST_METRICS]
        process = [
            Description(family.name, "gauge", tuple(family.samples[0].labels), family.documentation)
            for family in _ProcessCollector().collect()
        ]
        return sorted([*counted, *host, *process], key=lambda description: description.name)

    def counted(self) -> list[MetricWrapperBase]:
        """Return the metrics that workers count in."""
        return [metric for metric in self.registry._collector_to_names if isinstance(metric, MetricWrapperBase)]

    def _collectors(self) -> list[Collector]:
        folder = _counting_folder()
        counted: Collector = _CountedCollector(Path(folder)) if folder else self.registry
        return [counted, *self._host]


@dataclass(frozen=True, slots=True)
class Description:
    """A metric as people look it up: *name* is what queries ask for, without a histogram's endings."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that queries can ask for."""
        if self.kind == "histogram":
            return tuple(self.name + ending for ending in ("_bucket", "_count", "_sum"))
        return (self.name,)


def _describe(metric: MetricWrapperBase) -> Description:
    kind = str(metric._type)
    name = metric._name + ("_total" if kind == "counter" else "")
    return Description(name, kind, tuple(metric._labelnames), metric._documentation)


def metrics_reference(metrics: Metrics) -> str:
    """Write the table of docs/metrics.md."""
    rows = ["| metric | type | labels | what it says |", "| --- | --- | --- | --- |"]
    for metric in metrics.describe():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.doc} |")
    return "\n".join(rows) + "\n"


def _counted_as(label: Label) -> int | str:
    """Return the grade nearest to a regressor's answer, of which there is no end; a label of a class as it is."""
    return round(label) if isinstance(label, float) else label


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


class Number(Protocol):
    """What a counter or a gauge counts in."""

    def inc(self, amount: float, /) -> None:
        """Add *amount*."""


def number_of(metric: Counter | Gauge) -> Number:
    """Return what *metric*, which has its labels, counts in: for what is counted at every request."""
    number: Number = metric._value
    return number


def observe(histogram: Histogram, value: float) -> None:
    """Observe *value*; `Histogram.observe` tries one bucket after the other, which takes twice as long."""
    histogram._sum.inc(value)
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(1)


def _observe_all(histogram: Histogram, observed: npt.NDArray[np.float64]) -> None:
    """Observe many values at once.

    prometheus_client takes one at a time, which for a batch of 10,000 costs more than the predictions. Its histogram
    is a sum and a count a bucket (each not yet cumulated), so those are raised directly.
    """
    if len(observed) == 1:
        observe(histogram, observed.item())
        return
    bounds = np.asarray(histogram._upper_bounds)
    counts = np.bincount(np.searchsorted(bounds, observed, side="left"), minlength=len(bounds))
    histogram._sum.inc(float(observed.sum()))
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(int(count))
