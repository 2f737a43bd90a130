"""Who may say what: trusted proxies, and headers that keep browsers safe."""

from __future__ import annotations

from flask import Flask

from wine_api.config import Settings
from wine_api.security import headers
from wine_api.security.proxies import TrustedProxies


def init_app(app: Flask, settings: Settings) -> None:
    """Protect *app*."""
    headers.init_app(app)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
