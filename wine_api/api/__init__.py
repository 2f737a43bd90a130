"""The HTTP interface: one file a resource."""

from __future__ import annotations

from flask import Flask

from wine_api.api import docs, error_handlers, health, json, metrics, model, predict, root
from wine_api.config import Settings

# Every resource. The docs come last, as they describe the others.
ROUTES = (root.blueprint, health.blueprint, metrics.blueprint, predict.blueprint, model.blueprint)


def init_app(app: Flask, settings: Settings) -> None:
    """Mount every resource on *app*."""
    json.init_app(app)
    error_handlers.init_app(app)
    for blueprint in ROUTES:
        app.register_blueprint(blueprint)
    docs.init_app(app, settings)
