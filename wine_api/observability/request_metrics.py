"""Metrics of requests: the exporter's, counted at the cost of a few microseconds, and the outcome of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from prometheus_client import Counter, Histogram
from prometheus_flask_exporter import PrometheusMetrics

from wine_api.metrics import Metrics, Number, number_of, observe

_PREDICTING = {"/predict": "predict", "/predict/batch": "predict_batch"}
# From half a millisecond: the exporter's own begin at 5 ms, which is slower than most predictions.
_BUCKETS = (5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NO_ROUTE = "None"  # what the exporter calls it


class _Exporter(PrometheusMetrics):
    """prometheus-flask-exporter, which declares the metrics of requests, and counts none.

    Its hooks look up every counter by its labels at each request, which takes as long as the rest of what is counted
    and logged. They are not registered; `RequestMetrics` counts the same.
    """

    def info(self, *arguments: Any, **options: Any) -> None:
        """Leave out `flask_exporter_info`, a gauge for each process."""

    def before_request(self, hook: Callable[..., Any]) -> None:
        """Take a hook, as an application would, and never call it."""

    after_request = teardown_request = before_request


class _Counted(NamedTuple):
    """What a request of one kind raises."""

    total: Number
    seconds: Histogram
    predictions: Number | None
    outcome: str | None


class RequestMetrics:
    """Counts requests by route, never by path, which callers make up."""

    def __init__(self, metrics: Metrics) -> None:
        self._predictions = metrics.predictions
        exporter = _Exporter(app=None, path=None, registry=metrics.registry)
        exporter.export_defaults(group_by="url_rule", buckets=_BUCKETS, app=exporter)
        declared: Any = {metric._name: metric for metric in metrics.counted()}
        self._total: Counter = declared["flask_http_request"]
        self._seconds: Histogram = declared["flask_http_request_duration_seconds"]
        self._exceptions: Counter = declared["flask_http_request_exceptions"]
        # As many as there are routes, methods and statuses.
        self._kinds: dict[tuple[str, str | None, int], _Counted] = {}

    def count(self, method: str, route: str | None, status: int, seconds: float) -> str | None:
        """Count a request; return the outcome if it was for a prediction."""
        kind = self._kinds.get((method, route, status)) or self._look_up(method, route, status)
        kind.total.inc(1)
        observe(kind.seconds, seconds)
        if kind.predictions is not None:
            kind.predictions.inc(1)
        return kind.outcome

    def count_exception(self, method: str) -> None:
        """Count a request that the application left without an answer."""
        self._exceptions.labels(method, 500).inc()

    def _look_up(self, method: str, route: str | None, status: int) -> _Counted:
        endpoint = _PREDICTING.get(route or "") if method == "POST" else None
        outcome = None if endpoint is None else _outcome(status)
        self._kinds[method, route, status] = counted = _Counted(
            number_of(self._total.labels(method, status)),
            self._seconds.labels(method, route or _NO_ROUTE, status),
            None if endpoint is None else number_of(self._predictions.labels(endpoint, outcome)),
            outcome,
        )
        return counted


def _outcome(status: int) -> str:
    if status < 300:
        return "success"
    if status == 503:
        return "unavailable"
    return "invalid" if status < 500 else "error"
