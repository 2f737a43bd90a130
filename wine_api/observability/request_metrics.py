"""Metrics of requests: the exporter's, with guards, and the outcome of predictions."""

from __future__ import annotations

from flask import Flask, Response, request
from prometheus_flask_exporter import PrometheusMetrics

from wine_api.metrics import Metrics
from wine_api.observability.requests import CALLER, observed

_PREDICTING = {"predict.predict": "predict", "predict.predict_batch": "predict_batch"}


def init_app(app: Flask, metrics: Metrics) -> None:
    """Count the requests of *app*.

    By route, never by path, which callers make up. Without an endpoint of the exporter's own: `api/metrics.py` shows
    all metrics together.
    """
    PrometheusMetrics(app, path=None, registry=metrics.registry, group_by="url_rule")

    @app.before_request
    def note_route() -> None:
        observed(request.environ).route = None if request.url_rule is None else request.url_rule.rule

    @app.after_request
    def note_outcome(response: Response) -> Response:
        observed(request.environ).caller = request.environ.get(CALLER)
        endpoint = _PREDICTING.get(request.endpoint or "")
        if endpoint is not None:
            outcome = _outcome(response.status_code)
            observed(request.environ).outcome = outcome
            metrics.predictions.labels(endpoint, outcome).inc()
        return response


def _outcome(status: int) -> str:
    if status < 300:
        return "success"
    if status == 503:
        return "unavailable"
    return "invalid" if status < 500 else "error"
