"""What the service says of itself: its start page and its health."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate


def nullable_timestamp(description: str) -> fields.Field[Any]:
    """Return a field for a moment that may not have come yet."""
    return fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": f"{description} (RFC 3339, UTC).",
            "format": "date-time",
            "example": "2026-11-23T20:00:00.000Z",
        },
    )


class ModelInUseSchema(Schema):
    """The model in use, in short."""

    loaded = fields.Boolean(required=True)
    version = fields.String(required=True, allow_none=True, metadata={"example": "1.0.0"})
    digest = fields.String(required=True, allow_none=True, metadata={"description": "The SHA-256 of the model file."})
    engine = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "What computes the answers.", "example": "merged_trees"},
    )
    loaded_at = nullable_timestamp("When this worker loaded it")
    stale = fields.Boolean(
        required=True,
        metadata={"description": "It comes from this host's cache, and the store has not confirmed it since."},
    )


class RootSchema(Schema):
    """What this service is, and where everything else is."""

    name = fields.String(required=True, metadata={"example": "Wine Quality API"})
    version = fields.String(required=True, metadata={"example": "1.0.0"})
    description = fields.String(required=True)
    model = fields.Nested(ModelInUseSchema, required=True)
    links = fields.Dict(
        keys=fields.String(), values=fields.String(), required=True, metadata={"example": {"predict": "/predict"}}
    )


class StoreSchema(Schema):
    """The model store, as it was last seen by a worker of this host."""

    kind = fields.String(required=True, validate=validate.OneOf(("bundled", "local", "s3")))
    reachable = fields.Boolean(required=True, allow_none=True, metadata={"description": "Null before the first look."})
    checked_at = nullable_timestamp("When it was looked at")
    latency_ms = fields.Float(required=True, allow_none=True)
    error = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "A stable word for the cause, or null.", "example": None},
    )


class ResponseTimesSchema(Schema):
    """Response times of all workers of this host over the last five minutes; null where there were no requests."""

    count = fields.Integer(required=True)
    p50_ms = fields.Float(required=True, allow_none=True)
    p95_ms = fields.Float(required=True, allow_none=True)
    p99_ms = fields.Float(required=True, allow_none=True)


class WorkersSchema(Schema):
    """The workers of this host."""

    alive = fields.Integer(required=True)
    on_target_version = fields.Integer(
        required=True, metadata={"description": "Those that have the model which the host agreed on."}
    )


class HealthSchema(Schema):
    """Healthy: everything works. Degraded: answers are right, but something needs a look. Unhealthy: no model."""

    status = fields.String(required=True, validate=validate.OneOf(("healthy", "degraded", "unhealthy")))
    model = fields.Nested(ModelInUseSchema, required=True)
    store = fields.Nested(StoreSchema, required=True)
    response_times = fields.Nested(ResponseTimesSchema, required=True)
    workers = fields.Nested(WorkersSchema, required=True)
    uptime_seconds = fields.Float(required=True)


class ProbeSchema(Schema):
    """The answer to a probe."""

    status = fields.String(required=True, metadata={"example": "ready"})
