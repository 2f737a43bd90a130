"""The model: what is in use, and bringing another one into use."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version as installed_version
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue

from wine_api.api.health import model_in_use
from wine_api.api.json import read_optional_json
from wine_api.schemas.model import ModelSchema, ReloadRequest, ReloadResponse
from wine_api.services import get_services
from wine_api.serving.artifact import ModelCard
from wine_api.serving.refresher import describe_worker
from wine_api.serving.wine import FEATURES

blueprint = Blueprint("model", __name__, url_prefix="/model")

_model_schema = ModelSchema()
_reload_request = ReloadRequest()
_reload_response = ReloadResponse()


@blueprint.get("")
def show() -> ResponseReturnValue:
    """Show the model in use.
    ---
    get:
      tags: [model]
      responses:
        200: {description: The model, content: {application/json: {schema: ModelSchema}}}
    """
    services = get_services()
    model, target = services.holder.require(), services.fleet.target()
    generation = 0 if target is None else target.generation
    document = {
        **model_in_use(services),
        "generation": generation,
        "source": model.source,
        "features": _features(model.card),
        "classes": model.classes,
        "metrics": None if model.card is None else model.card.metrics,
        "trained_with": None if model.card is None else model.card.libraries,
        "served_with": serving_libraries(),
        "library_mismatch": model.library_mismatch,
        "workers": [describe_worker(worker, generation) for worker in services.fleet.workers()],
    }
    return _model_schema.dump(document)


@blueprint.post("/reload")
def reload() -> ResponseReturnValue:
    """Bring the store's model, or a version by name, into every worker. Answers when it is there.
    ---
    post:
      tags: [model]
      requestBody: {required: false, content: {application/json: {schema: ReloadRequest}}}
      responses:
        200: {description: Every worker has it, content: {application/json: {schema: ReloadResponse}}}
    """
    version = _reload_request.load(read_optional_json())
    reloaded = get_services().refresher.reload(version)
    document = {
        "outcome": reloaded.outcome,
        "version": reloaded.model.version,
        "digest": reloaded.model.digest,
        "generation": reloaded.generation,
        "workers": [describe_worker(worker, reloaded.generation) for worker in reloaded.workers],
    }
    return _reload_response.dump(document)


def _features(card: ModelCard | None) -> list[dict[str, Any]]:
    ranges = {} if card is None else {known.name: known for known in card.ranges}
    return [
        {
            "name": feature.name,
            "unit": feature.unit,
            "description": feature.description,
            "minimum": ranges[feature.name].minimum if feature.name in ranges else None,
            "maximum": ranges[feature.name].maximum if feature.name in ranges else None,
        }
        for feature in FEATURES
    ]


@cache
def serving_libraries() -> dict[str, str]:
    """Return the versions of the libraries that serve the model."""
    libraries = {name: installed_version(name) for name in ("scikit-learn", "numpy", "joblib")}
    return {"python": platform.python_version(), **libraries}
