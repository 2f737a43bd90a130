"""The model: what is in use, and bringing another one into use."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version as installed_version
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue

from wine_api import native_threads
from wine_api.api.health import model_in_use, timestamp
from wine_api.api.json import read_optional_json
from wine_api.schemas.model import ModelSchema, ReloadRequest, ReloadResponse, VersionsSchema
from wine_api.services import get_services
from wine_api.serving.artifact import ModelCard
from wine_api.serving.rollout import Reloaded, Versions, describe_worker
from wine_api.serving.stores.base import StoredModel
from wine_api.serving.wine import FEATURES

blueprint = Blueprint("model", __name__, url_prefix="/model")

_model_schema = ModelSchema()
_reload_request = ReloadRequest()
_reload_response = ReloadResponse()
_versions_schema = VersionsSchema()


@blueprint.get("")
def show() -> ResponseReturnValue:
    """Show the model in use.

    ---
    get:
      operationId: get_model
      tags: [model]
      responses:
        200: {description: The model, content: {application/json: {schema: ModelSchema}}}
      errors: [ModelNotLoaded]
    """
    services = get_services()
    model, host = services.holder.require(), services.fleet.status()
    document = {
        **model_in_use(model, host),
        "generation": host.generation,
        "source": model.source,
        "engine_reason": model.engine_reason,
        "compute": {"processors": native_threads.processors(), "threads": native_threads.threads()},
        "features": _features(model.card),
        "classes": model.classes,
        "metrics": None if model.card is None else model.card.metrics,
        "trained_with": None if model.card is None else model.card.libraries,
        "served_with": serving_libraries(),
        "library_mismatch": model.library_mismatch,
        "workers": [describe_worker(worker, host.generation) for worker in host.workers],
    }
    return _model_schema.dump(document)


@blueprint.post("/reload")
def reload() -> ResponseReturnValue:
    """Bring the store's model, or a version by name, into every worker.

    Answers when every worker of this host has it. Until then, and if the new model is refused, the old one serves.

    ---
    post:
      operationId: reload_model
      tags: [model]
      parameters: [X-Request-ID]
      requestBody:
        required: false
        content:
          application/json:
            schema: ReloadRequest
            examples: {latest_version: latest_version, named_version: named_version}
      responses:
        200:
          description: Every worker has it
          content: {application/json: {schema: ReloadResponse, examples: {reloaded: reloaded}}}
      errors:
        - ModelVersionNotFound
        - ModelQuarantined
        - ModelRejected
        - ModelStoreUnavailable
        - ModelNotChecked
        - WorkersNotConverged
    """
    version = _reload_request.load(read_optional_json())
    return _reload_response.dump(_changed(get_services().rollout.reload(version)))


@blueprint.post("/rollback")
def rollback() -> ResponseReturnValue:
    """Bring the model that was in use before back into every worker.

    It comes from this host's cache, so the store may be away. The model that is left goes into quarantine: it comes
    back only if it is asked for by name.

    ---
    post:
      operationId: roll_back_model
      tags: [model]
      parameters: [X-Request-ID]
      responses:
        200:
          description: Every worker has the model before
          content: {application/json: {schema: ReloadResponse}}
      errors: [ModelNotLoaded, NoPreviousModel, ModelRejected, ModelNotChecked, WorkersNotConverged]
    """
    return _reload_response.dump(_changed(get_services().rollout.roll_back()))


@blueprint.get("/versions")
def versions() -> ResponseReturnValue:
    """List the versions in the store, newest first: which is latest, which is in use, which are in quarantine and why.

    ---
    get:
      operationId: list_model_versions
      tags: [model]
      parameters: [X-Request-ID]
      responses:
        200:
          description: The versions
          content: {application/json: {schema: VersionsSchema}}
      errors: [ModelStoreUnavailable]
    """
    found = get_services().rollout.versions()
    return _versions_schema.dump({"versions": [_version(model, found) for model in found.all]})


def _changed(reloaded: Reloaded) -> dict[str, Any]:
    """Describe what a change of the model did."""
    target = reloaded.target
    return {
        "outcome": reloaded.outcome,
        "version": target.version,
        "digest": target.digest,
        "generation": target.generation,
        "workers": [describe_worker(worker, target.generation) for worker in reloaded.workers],
    }


def _version(model: StoredModel, found: Versions) -> dict[str, Any]:
    quarantined = found.quarantine_of(model)
    return {
        "version": found.name_of(model),
        "key": model.key,
        "size": model.size,
        "modified_at": timestamp(model.modified_at.timestamp()),
        "latest": found.is_latest(model),
        "in_use": found.is_in_use(model),
        "quarantined": quarantined
        and {"gate": quarantined.gate, "reason": quarantined.reason, "since": timestamp(quarantined.since)},
    }


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
