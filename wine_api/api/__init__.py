"""The HTTP interface: one file a resource."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, Flask

from wine_api.api import docs, error_handlers, health, json, metrics, model, predict, root
from wine_api.config import Settings
from wine_api.security.access import ANYONE, PROBE, Access, Scope
from wine_api.security.guard import guard_of

# Every resource, with its views and what a caller needs for each. A view without a line here does not answer.
# The docs come last, as they describe the others.
ROUTES: Mapping[Blueprint, Mapping[str, Access]] = {
    root.blueprint: {"root": ANYONE},
    health.blueprint: {"health": PROBE, "live": PROBE, "ready": PROBE},
    metrics.blueprint: {"metrics": Access(Scope.METRICS, limited=False)},
    predict.blueprint: {"predict": Access(Scope.PREDICT), "predict_batch": Access(Scope.PREDICT)},
    model.blueprint: {
        "show": Access(Scope.MODEL_READ),
        "versions": Access(Scope.MODEL_READ),
        "reload": Access(Scope.MODEL_WRITE),
        "rollback": Access(Scope.MODEL_WRITE),
    },
    docs.blueprint: {"docs": ANYONE, "redoc": ANYONE, "openapi": ANYONE, "static": ANYONE},
}


def init_app(app: Flask, settings: Settings) -> None:
    """Mount every resource on *app*."""
    json.init_app(app)
    error_handlers.init_app(app)
    for blueprint, views in ROUTES.items():
        guard_of(app).open({f"{blueprint.name}.{view}": access for view, access in views.items()})
        app.register_blueprint(blueprint)
    docs.init_app(app, settings)
