"""The model on the wire: what it is, and what a reload did."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from wine_api.schemas.base import Complaint, RequestSchema
from wine_api.schemas.service import nullable_timestamp
from wine_api.serving.engines.base import ENGINES, FALLBACK_REASONS


class SourceSchema(Schema):
    """Where the model came from."""

    kind = fields.String(required=True, validate=validate.OneOf(("bundled", "local", "s3")))
    bucket = fields.String(required=True, allow_none=True)
    key = fields.String(required=True, allow_none=True)
    version_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The bucket's id of the object."}
    )


class FeatureSchema(Schema):
    """A measurement that the model takes. The range is what it saw in training; null for a model without a card."""

    name = fields.String(required=True, metadata={"example": "fixed_acidity"})
    unit = fields.String(required=True, metadata={"example": "g/dm3"})
    description = fields.String(required=True)
    minimum = fields.Float(required=True, allow_none=True)
    maximum = fields.Float(required=True, allow_none=True)


class WorkerSchema(Schema):
    """A worker and the model it has in use."""

    slot = fields.Integer(required=True)
    pid = fields.Integer(required=True)
    version = fields.String(required=True, allow_none=True)
    generation = fields.Integer(required=True)
    converged = fields.Boolean(required=True, metadata={"description": "It has the model that the host agreed on."})
    error = fields.String(required=True, allow_none=True)


class ComputeSchema(Schema):
    """What the model may compute with."""

    processors = fields.Float(
        required=True,
        metadata={"description": "For all workers of this host: those allowed, or the quota.", "example": 2},
    )
    threads = fields.Integer(
        required=True, allow_none=True, metadata={"description": "For one worker; null: no limit.", "example": 1}
    )


class ModelSchema(Schema):
    """The model in use."""

    version = fields.String(required=True, metadata={"example": "1.0.0"})
    digest = fields.String(required=True, metadata={"description": "The SHA-256 of the model file."})
    generation = fields.Integer(required=True, metadata={"description": "Counts the models that this host agreed on."})
    source = fields.Nested(SourceSchema, required=True)
    engine = fields.String(
        required=True,
        validate=validate.OneOf(ENGINES),
        metadata={"description": "What computes the answers.", "example": "merged_trees"},
    )
    engine_reason = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf((*FALLBACK_REASONS, None)),
        metadata={"description": "Why scikit-learn itself answers; null where a faster engine does."},
    )
    compute = fields.Nested(ComputeSchema, required=True)
    stale = fields.Boolean(required=True)
    features = fields.List(fields.Nested(FeatureSchema), required=True)
    classes = fields.List(
        fields.Raw(metadata={"type": ["integer", "number", "string"]}),
        required=True,
        allow_none=True,
        metadata={"description": "The labels; null for a regressor.", "example": [3, 4, 5, 6, 7, 8, 9]},
    )
    metrics = fields.Dict(
        required=True, allow_none=True, metadata={"description": "Cross-validated scores from the model card."}
    )
    trained_with = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        allow_none=True,
        metadata={"description": "Library versions that trained the model."},
    )
    served_with = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "Library versions that serve it."},
    )
    library_mismatch = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "The libraries that wrote the model in another version than the one that serves it."},
    )
    loaded_at = nullable_timestamp("When this worker loaded it")
    workers = fields.List(fields.Nested(WorkerSchema), required=True)


class ReloadRequest(RequestSchema):
    """Which version to bring into use. Loads as its name, or None for what is under the model key."""

    version = fields.String(
        validate=validate.Length(min=1, max=1024),
        error_messages={
            "invalid": [Complaint("wrong_type", "Must be text.")],
            "null": [Complaint("wrong_type", "Must be text, not null.")],
        },
        metadata={"description": "A published version, a plain upload's name, or an S3 VersionId.", "example": "1.0.0"},
    )

    @post_load
    def to_version(self, loaded: dict[str, Any], **kwargs: Any) -> str | None:
        """Return the version, or None."""
        return loaded.get("version")


class ReloadResponse(Schema):
    """Every worker of this host has the model."""

    outcome = fields.String(required=True, validate=validate.OneOf(("loaded", "unchanged", "rolled_back")))
    version = fields.String(required=True, metadata={"example": "1.0.0"})
    digest = fields.String(required=True)
    generation = fields.Integer(required=True)
    workers = fields.List(fields.Nested(WorkerSchema), required=True)


class QuarantineSchema(Schema):
    """Why a version is not taken."""

    gate = fields.String(required=True, metadata={"description": "What refused it.", "example": "golden"})
    reason = fields.String(required=True, metadata={"description": "A stable word.", "example": "golden_rows_differ"})
    since = nullable_timestamp("Since when")


class VersionSchema(Schema):
    """A version in the store."""

    version = fields.String(required=True, metadata={"example": "1.0.0"})
    key = fields.String(required=True, metadata={"example": "models/1.0.0/wine_quality_model.joblib"})
    size = fields.Integer(required=True, metadata={"description": "In bytes."})
    modified_at = nullable_timestamp("When it was written")
    latest = fields.Boolean(required=True, metadata={"description": "It is what lies under the model key."})
    in_use = fields.Boolean(required=True, metadata={"description": "This host serves it."})
    quarantined = fields.Nested(QuarantineSchema, required=True, allow_none=True)


class VersionsSchema(Schema):
    """The versions in the store, newest first."""

    versions = fields.List(fields.Nested(VersionSchema), required=True)
