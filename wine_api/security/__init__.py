"""Who may call what, how much, and from where; and headers that keep browsers safe."""

from __future__ import annotations

from flask import Flask

from wine_api.config import Settings
from wine_api.metrics import Metrics
from wine_api.security import cors, guard
from wine_api.security.auth import LAST_GOOD_KEYS, build_authenticator
from wine_api.security.headers import SafeHeaders
from wine_api.security.proxies import TrustedProxies
from wine_api.security.rate_limit import COUNTERS_FILE, build_rate_limits

# What the workers of a run keep in STATE_DIR; the next run begins without.
HOST_FILES = (LAST_GOOD_KEYS, COUNTERS_FILE)


def init_app(app: Flask, settings: Settings, metrics: Metrics) -> None:
    """Protect *app*."""
    limits = build_rate_limits(settings, metrics)
    cors.init_app(app, settings.cors_origins)
    guard.init_app(app, guard.Guard(build_authenticator(settings), limits, settings.request_deadline))
    policy = None if limits is None else limits.policy
    answering = SafeHeaders(app.wsgi_app, policy, depends_on_origin=bool(settings.cors_origins))
    app.wsgi_app = TrustedProxies(answering, settings.trusted_proxies)  # type: ignore[method-assign]
