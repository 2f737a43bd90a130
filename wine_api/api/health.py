"""Whether the service works, for people (/health) and for whoever starts and stops it (/health/live, /health/ready)."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from flask import Blueprint
from flask.typing import ResponseReturnValue

from wine_api.schemas.service import HealthSchema, ProbeSchema
from wine_api.services import Services, get_services

blueprint = Blueprint("health", __name__, url_prefix="/health")

_health_schema = HealthSchema()
_probe_schema = ProbeSchema()


@blueprint.get("")
def health() -> ResponseReturnValue:
    """Say how the service is.
    ---
    get:
      tags: [health]
      responses:
        200: {description: Healthy or degraded, content: {application/json: {schema: HealthSchema}}}
        503: {description: "Unhealthy: no model", content: {application/json: {schema: HealthSchema}}}
    """
    services = get_services()
    workers = services.fleet.workers()
    gauges = services.fleet.gauges()
    store = services.fleet.store()
    status = _status(services, gauges.stale or store.reachable is False or gauges.workers_converged < gauges.workers)
    document = {
        "status": status,
        "model": model_in_use(services),
        "store": {**asdict(store), "checked_at": timestamp(store.checked_at)},
        "response_times": asdict(services.fleet.response_times()),
        "workers": {"alive": len(workers), "on_target_version": gauges.workers_converged},
        "uptime_seconds": round(time.time() - services.started_at, 3),
    }
    return _health_schema.dump(document), 503 if status == "unhealthy" else 200


def _status(services: Services, imperfect: bool) -> Literal["healthy", "degraded", "unhealthy"]:
    if services.holder.current() is None:
        return "unhealthy"
    return "degraded" if imperfect else "healthy"


@blueprint.get("/live")
def live() -> ResponseReturnValue:
    """Say that the process runs; looks at nothing.
    ---
    get:
      tags: [health]
      responses:
        200: {description: Alive, content: {application/json: {schema: ProbeSchema}}}
    """
    return _probe_schema.dump({"status": "alive"})


@blueprint.get("/ready")
def ready() -> ResponseReturnValue:
    """Say whether predictions will be answered: every worker has a verified model, and none is stopping.
    ---
    get:
      tags: [health]
      responses:
        200: {description: Ready, content: {application/json: {schema: ProbeSchema}}}
        503: {description: "No model yet, or stopping", content: {application/json: {schema: ProbeSchema}}}
    """
    services = get_services()
    if services.draining.is_set():
        return _probe_schema.dump({"status": "draining"}), 503
    if services.holder.current() is None or not services.fleet.all_have_a_model():
        return _probe_schema.dump({"status": "loading"}), 503
    return _probe_schema.dump({"status": "ready"})


def model_in_use(services: Services) -> dict[str, Any]:
    """Describe the model in use, in short."""
    model, target = services.holder.current(), services.fleet.target()
    if model is None:
        return dict.fromkeys(("version", "digest", "engine", "loaded_at")) | {"loaded": False, "stale": False}
    return {
        "loaded": True,
        "version": model.version,
        "digest": model.digest,
        "engine": model.engine.name,
        "loaded_at": timestamp(model.loaded_at.timestamp()),
        "stale": target is not None and target.stale,
    }


def timestamp(seconds: float | None) -> str | None:
    """Write a moment, in seconds since the epoch, as RFC 3339 in UTC with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
