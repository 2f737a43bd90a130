"""Who may call what, how much, and from where; and headers that keep browsers safe."""

from __future__ import annotations

from flask import Flask

from wine_api.config import Settings
from wine_api.metrics import Metrics
from wine_api.security import cors, guard, headers
from wine_api.security.auth import LAST_GOOD_KEYS
from wine_api.security.proxies import TrustedProxies
from wine_api.security.rate_limit import COUNTERS_FILE

# What the workers of a run keep in STATE_DIR; the next run begins without.
HOST_FILES = (LAST_GOOD_KEYS, COUNTERS_FILE)


def init_app(app: Flask, settings: Settings, metrics: Metrics) -> None:
    """Protect *app*."""
    headers.init_app(app)
    cors.init_app(app, settings.cors_origins)
    guard.init_app(app, settings, metrics)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
