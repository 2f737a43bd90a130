"""Errors on the wire: RFC 9457 problem documents."""

from __future__ import annotations

from marshmallow import Schema, fields


class FaultSchema(Schema):
    """One thing that is wrong with a request body."""

    pointer = fields.String(
        required=True, metadata={"description": "A JSON pointer into the body.", "example": "/features/3"}
    )
    code = fields.String(required=True, metadata={"description": "Stable, for programs.", "example": "not_a_number"})
    detail = fields.String(
        required=True, metadata={"description": "For people.", "example": "Must be a number, not text."}
    )


class ProblemSchema(Schema):
    """What went wrong. Never holds a traceback, a path of the server, or what was sent."""

    type = fields.String(required=True, metadata={"example": "urn:wine-api:error:validation_failed"})
    title = fields.String(required=True, metadata={"example": "The request is not valid"})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status.", "example": 422})
    detail = fields.String(required=True, metadata={"example": "The request has 1 problem."})
    code = fields.String(
        required=True, metadata={"description": "Stable, for programs.", "example": "validation_failed"}
    )
    request_id = fields.String(
        required=True, metadata={"description": "Quote it when you report the problem.", "example": "9f1c2b"}
    )
    trace_id = fields.String(metadata={"description": "The trace of the request, where the service sends traces."})
    errors = fields.List(
        fields.Nested(FaultSchema), metadata={"description": "What is wrong with the body, at most 20 entries."}
    )
    version = fields.String(metadata={"description": "For `model_quarantined`: the version."})
    gate = fields.String(
        metadata={"description": "For `model_rejected` and `model_quarantined`: the check that refused the model."}
    )
    reason = fields.String(metadata={"description": "For errors of models and stores: a stable word for the cause."})
    scope = fields.String(metadata={"description": "For `not_allowed`: the scope that is needed."})
    limit = fields.String(metadata={"description": "For `rate_limited`: what of, `requests` or `rows`."})
    workers = fields.List(
        fields.Dict(), metadata={"description": "For `workers_not_converged`: which worker has which model."}
    )
