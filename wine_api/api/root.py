"""The start page: what this is, and where everything else is."""

from __future__ import annotations

from flask import Blueprint, url_for
from flask.typing import ResponseReturnValue

from wine_api.api.health import model_in_use
from wine_api.schemas.service import RootSchema
from wine_api.services import get_services

blueprint = Blueprint("root", __name__)

_root_schema = RootSchema()
_DESCRIPTION = "Says how good a wine is, from eleven physico-chemical measurements."
_LINKED = {
    "predict": "predict.predict",
    "predict_batch": "predict.predict_batch",
    "model": "model.show",
    "health": "health.health",
    "metrics": "metrics.metrics",
    "docs": "flasgger.docs",
    "redoc": "flasgger.redoc",
    "openapi": "flasgger.openapi",
}


@blueprint.get("/")
def root() -> ResponseReturnValue:
    """Say what this service is and where to go next.

    ---
    get:
      operationId: get_service
      tags: [service]
      responses:
        200: {description: The service, content: {application/json: {schema: RootSchema}}}
    """
    services = get_services()
    document = {
        "name": services.settings.api_title,
        "version": services.settings.api_version,
        "description": _DESCRIPTION,
        "model": model_in_use(services.holder.current(), services.fleet.status()),
        "links": {name: url_for(endpoint) for name, endpoint in _LINKED.items()},
    }
    return _root_schema.dump(document)
