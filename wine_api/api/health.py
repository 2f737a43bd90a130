"""Whether the service works, for people (/health) and for whoever starts and stops it (/health/live, /health/ready)."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from flask import Blueprint
from flask.typing import ResponseReturnValue

from wine_api.schemas.service import HealthSchema, ProbeSchema
from wine_api.services import get_services
from wine_api.serving.fleet import HostStatus
from wine_api.serving.holder import LoadedModel

blueprint = Blueprint("health", __name__, url_prefix="/health")

_health_schema = HealthSchema()
_probe_schema = ProbeSchema()


@blueprint.get("")
def health() -> ResponseReturnValue:
    """Say how the service is.

    For people and dashboards. Whoever starts and stops the service should ask `/health/live` and `/health/ready`.

    ---
    get:
      operationId: get_health
      tags: [health]
      responses:
        200: {description: Healthy or degraded, content: {application/json: {schema: HealthSchema}}}
        503: {description: "Unhealthy: no model", content: {application/json: {schema: HealthSchema}}}
    """
    services = get_services()
    host = services.fleet.status()
    status = _verdict(services.holder.current(), host)
    document = {
        "status": status,
        "model": model_in_use(services.holder.current(), host),
        "store": {**asdict(host.store), "checked_at": timestamp(host.store.checked_at)},
        "response_times": asdict(host.response_times),
        "workers": {"alive": len(host.workers), "on_target_version": host.converged},
        "uptime_seconds": round(time.time() - services.started_at, 3),
    }
    return _health_schema.dump(document), 503 if status == "unhealthy" else 200


def _verdict(model: LoadedModel | None, host: HostStatus) -> Literal["healthy", "degraded", "unhealthy"]:
    if model is None:
        return "unhealthy"
    imperfect = host.stale or host.store.reachable is False or host.converged < len(host.workers)
    return "degraded" if imperfect else "healthy"


@blueprint.get("/live")
def live() -> ResponseReturnValue:
    """Say that the process runs; looks at nothing.

    ---
    get:
      operationId: get_liveness
      tags: [health]
      responses:
        200: {description: Alive, content: {application/json: {schema: ProbeSchema, examples: {alive: alive}}}}
    """
    return _probe_schema.dump({"status": "alive"})


@blueprint.get("/ready")
def ready() -> ResponseReturnValue:
    """Say whether predictions will be answered.

    They are when every worker has a verified model and none is stopping. Neither a reload nor a store that is away
    changes that.

    ---
    get:
      operationId: get_readiness
      tags: [health]
      responses:
        200: {description: Ready, content: {application/json: {schema: ProbeSchema, examples: {ready: ready}}}}
        503:
          description: No model yet, or stopping
          content: {application/json: {schema: ProbeSchema, examples: {loading: loading, draining: draining}}}
    """
    services = get_services()
    if services.draining.is_set():
        return _probe_schema.dump({"status": "draining"}), 503
    if services.holder.current() is None or not services.fleet.all_have_a_model():
        return _probe_schema.dump({"status": "loading"}), 503
    return _probe_schema.dump({"status": "ready"})


def model_in_use(model: LoadedModel | None, host: HostStatus) -> dict[str, Any]:
    """Describe the model in use, in short."""
    if model is None:
        return dict.fromkeys(("version", "digest", "engine", "loaded_at")) | {"loaded": False, "stale": False}
    return {
        "loaded": True,
        "version": model.version,
        "digest": model.digest,
        "engine": model.engine.name,
        "loaded_at": timestamp(model.loaded_at.timestamp()),
        "stale": host.stale,
    }


def timestamp(seconds: float | None) -> str | None:
    """Write a moment, in seconds since the epoch, as RFC 3339 in UTC with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
