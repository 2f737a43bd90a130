"""Seeing what the service does: request ids, log lines, metrics of requests, traces."""

from __future__ import annotations

from flask import Flask

from wine_api.config import Settings
from wine_api.metrics import Metrics
from wine_api.observability.request_log import RequestLog
from wine_api.observability.requests import RequestObserver
from wine_api.response_times import ResponseTimes
from wine_api.spans import Spans


def init_app(app: Flask, settings: Settings, metrics: Metrics, response_times: ResponseTimes, spans: Spans) -> None:
    """Observe every request of *app*, whole."""
    log = RequestLog(settings.log_predictions, features=settings.log_features)
    app.wsgi_app = RequestObserver(app.wsgi_app, metrics, response_times, spans, log)  # type: ignore[method-assign]
