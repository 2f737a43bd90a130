"""Requests for predictions, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validates_schema

from wine_api.schemas.base import Complaint, RequestSchema, complain
from wine_api.schemas.wine import WineArrayOrObject, WineObject
from wine_api.serving.wine import FEATURES, Matrix

_NOT_A_LIST: Any = {
    "invalid": [Complaint("wrong_type", "Must be an array of wines.")],
    "null": [Complaint("wrong_type", "Must be an array of wines, not null.")],
}
_EXAMPLE_ROW = [feature.example for feature in FEATURES]
_EXAMPLE_OBJECT = {feature.name: feature.example for feature in FEATURES}


class _OneForm(RequestSchema):
    """A request that takes exactly one of two forms, each a field."""

    forms: tuple[str, str]

    @pre_load
    def explain_request_id(self, body: Any, **kwargs: Any) -> Any:
        """Tell callers of the old service where the request id has gone."""
        if isinstance(body, dict) and "request_id" in body:
            raise ValidationError(
                {"request_id": [Complaint("unknown_field", "Send the request id as the X-Request-ID header.")]}
            )
        return body

    @validates_schema(pass_original=True, skip_on_field_errors=True)
    def exactly_one_form(self, loaded: Any, body: Mapping[str, Any], **kwargs: Any) -> None:
        """Refuse both forms, and neither."""
        first, second = self.forms
        given = [form for form in self.forms if form in body]
        if not given:
            raise complain("missing", f"Give {first} or {second}.")
        if len(given) == 2:
            raise complain("ambiguous", f"Give {first} or {second}, not both.")


class PredictRequest(_OneForm):
    """One wine. Loads as a matrix of shape (1, 11)."""

    forms = ("features", "wine_features")
    features = WineArrayOrObject(
        metadata={"description": "Eleven numbers in the published order, or an object.", "example": _EXAMPLE_ROW}
    )
    wine_features = WineObject(
        metadata={"description": "An object from feature name to number.", "example": _EXAMPLE_OBJECT}
    )

    @post_load
    def to_matrix(self, loaded: dict[str, list[float]], **kwargs: Any) -> Matrix:
        """Return the wine as a matrix of one row."""
        return np.array(list(loaded.values()), dtype=np.float64)


class PredictBatchRequest(_OneForm):
    """Many wines. Loads as a matrix of shape (rows, 11)."""

    forms = ("features_list", "wine_features_list")
    features_list = fields.List(
        WineArrayOrObject(),
        error_messages=_NOT_A_LIST,
        metadata={"description": "Wines, each an array of eleven numbers or an object.", "example": [_EXAMPLE_ROW]},
    )
    wine_features_list = fields.List(
        WineObject(),
        error_messages=_NOT_A_LIST,
        metadata={"description": "Wines, each an object.", "example": [_EXAMPLE_OBJECT]},
    )

    @validates_schema(skip_on_field_errors=True)
    def not_empty(self, loaded: dict[str, list[list[float]]], **kwargs: Any) -> None:
        """Refuse a batch of nothing."""
        for form, rows in loaded.items():
            if not rows:
                raise ValidationError({form: [Complaint("empty_batch", "Must have at least one wine.")]})

    @post_load
    def to_matrix(self, loaded: dict[str, list[list[float]]], **kwargs: Any) -> Matrix:
        """Return the wines as a matrix."""
        (rows,) = loaded.values()
        return np.array(rows, dtype=np.float64)


class OutOfRangeSchema(Schema):
    """A value outside the range seen in training; the wine is scored all the same."""

    feature = fields.String(required=True, metadata={"example": "alcohol"})
    value = fields.Float(required=True, metadata={"example": 17.5})
    low = fields.Float(required=True, metadata={"description": "The smallest value seen in training.", "example": 8.0})
    high = fields.Float(required=True, metadata={"description": "The largest value seen in training.", "example": 14.9})


class PredictionSchema(Schema):
    """What the model says of one wine."""

    prediction = fields.Raw(
        required=True,
        metadata={
            "description": "The model's own label: a whole number, any number for regressors, or text.",
            "type": ["integer", "number", "string"],
            "example": 6,
        },
    )
    confidence = fields.Float(
        required=True,
        allow_none=True,
        metadata={
            "description": "The probability of the prediction; null for a model without probabilities.",
            "minimum": 0,
            "maximum": 1,
            "example": 0.87,
        },
    )
    probabilities = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        metadata={
            "description": "With `include=probabilities`: the probability of each label; not for models without.",
            "example": {"5": 0.1, "6": 0.87, "7": 0.03},
        },
    )
    warnings = fields.List(
        fields.Nested(OutOfRangeSchema),
        metadata={"description": "Values outside the range seen in training; absent where there are none."},
    )


class _Accounts(Schema):
    """What every answer says of how it came about."""

    model_version = fields.String(
        required=True, metadata={"description": "The model that answered.", "example": "1.0.0"}
    )
    processing_time_ms = fields.Float(
        required=True,
        metadata={"description": "Milliseconds from the request's arrival to its answer.", "example": 0.4},
    )
    features_processed = fields.Integer(
        required=True, metadata={"description": "The features of one wine.", "example": 11}
    )


class PredictResponse(_Accounts, PredictionSchema):
    """The answer for one wine."""


class _Batch(Schema):
    """What an answer for many wines holds besides its accounts."""

    predictions = fields.List(fields.Nested(PredictionSchema), required=True)
    batch_size = fields.Integer(required=True, metadata={"example": 1})


class PredictBatchResponse(_Accounts, _Batch):
    """The answers for many wines, in the order of the request, all by one model."""
