"""Seeing what the service does: request ids, log lines, metrics of requests."""

from __future__ import annotations

from flask import Flask

from wine_api.metrics import Metrics
from wine_api.observability import request_metrics
from wine_api.observability.requests import RequestObserver
from wine_api.response_times import ResponseTimes


def init_app(app: Flask, metrics: Metrics, response_times: ResponseTimes) -> None:
    """Observe every request of *app*, whole."""
    request_metrics.init_app(app, metrics)
    app.wsgi_app = RequestObserver(app.wsgi_app, metrics, response_times)  # type: ignore[method-assign]
