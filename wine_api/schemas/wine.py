"""A wine on the wire: eleven numbers in the published order, or an object of eleven names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from wine_api.schemas.base import Complaint, complain
from wine_api.serving.wine import FEATURE_COUNT, FEATURE_NAMES, FEATURES, Feature, feature_name

Row = list[float]

# More names than this are not explained one by one: finding what a name may have meant takes time.
_MOST_NAMES = 4 * FEATURE_COUNT

# marshmallow passes messages on as they are; ours carry a code.
_NUMBER_MESSAGES: dict[str, Any] = {
    "required": [Complaint("missing", "This value is missing.")],
    "null": [Complaint("not_a_number", "Must be a number, not null.")],
}
_OBJECT_MESSAGES: dict[str, Any] = {
    "null": [Complaint("wrong_type", "Must be an object of eleven named numbers, not null.")],
}
_EITHER_MESSAGES: dict[str, Any] = {
    "null": [Complaint("wrong_type", "Must be eleven numbers, or an object of them, not null.")],
}


class InRange(validate.Range):
    """marshmallow's Range, with a code."""

    def _format_error(self, value: Any, message: str) -> Any:
        if self.min is not None and value < self.min:
            return [Complaint("too_small", f"Must be at least {self.min:g}.")]
        return [Complaint("too_large", f"Must be at most {self.max:g}.")]


class Number(fields.Float):
    """A finite JSON number. Text, booleans and null are not numbers."""

    default_error_messages = _NUMBER_MESSAGES

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if type(value) not in (int, float):
            raise complain("not_a_number", f"Must be a number, not {_kind(value)}.")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise complain("not_finite", "Must be a finite number.")
        return number


_KINDS = {
    int: "a number",
    float: "a number",
    bool: "a boolean",
    str: "text",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


def _number_for(feature: Feature) -> Number:
    unit = "" if feature.unit == "1" else f" ({feature.unit})"  # pH has none
    metadata = {"description": f"{feature.description}{unit}", "example": feature.example}
    return Number(
        required=True,
        validate=InRange(min=feature.minimum, max=feature.maximum),
        metadata={**metadata, "x-unit": feature.unit},
    )


class _StrictSchema(Schema):
    class Meta:
        unknown = RAISE


WineFeatures = _StrictSchema.from_dict(
    {feature.name: _number_for(feature) for feature in FEATURES}, name="WineFeatures"
)
_wine_features = WineFeatures()


class WineObject(fields.Field[Row]):
    """A wine as an object from feature name to number, however the names are spelled; loads as a row of FEATURES."""

    default_error_messages = _OBJECT_MESSAGES

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Row:
        if not isinstance(value, dict):
            raise complain("wrong_type", f"Must be an object of eleven named numbers, not {_kind(value)}.")
        return _row_of_object(value)


class WineArrayOrObject(fields.Field[Row]):
    """A wine as an array of eleven numbers in the published order, or as an object; loads as a row of FEATURES."""

    default_error_messages = _EITHER_MESSAGES

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Row:
        if isinstance(value, list):
            return _row_of_array(value)
        if isinstance(value, dict):
            return _row_of_object(value)
        raise complain("wrong_type", f"Must be an array of eleven numbers, or an object of them, not {_kind(value)}.")


def _row_of_array(numbers: list[Any]) -> Row:
    if len(numbers) != FEATURE_COUNT:
        raise complain("wrong_length", f"Must have {FEATURE_COUNT} numbers, not {len(numbers)}.")
    return _row(
        dict(zip(FEATURE_NAMES, numbers, strict=True)), dict(zip(FEATURE_NAMES, range(FEATURE_COUNT), strict=True))
    )


def _row_of_object(spelled: dict[str, Any]) -> Row:
    if len(spelled) > _MOST_NAMES:
        raise complain("too_many_names", f"Must have {FEATURE_COUNT} names, not {len(spelled)}.")
    named: dict[str, Any] = {}
    spelling_of: dict[str, str] = {}
    complaints: dict[str, list[Complaint]] = {}
    for spelling, number in spelled.items():
        name = feature_name(spelling)
        if name is None:
            complaints[spelling] = [Complaint("unknown_feature", _did_you_mean(spelling))]
        elif name in named:
            complaints[spelling] = [Complaint("duplicate_feature", f"{name} is given twice.")]
        else:
            named[name] = number
            spelling_of[name] = spelling
    try:
        row = _row(named, spelling_of)
    except ValidationError as error:
        complaints |= error.messages_dict
    if complaints:
        raise ValidationError(complaints)
    return row


def _row(named: Mapping[str, Any], place_of: Mapping[str, Any]) -> Row:
    """Return the values of *named* in the order of FEATURES; complaints say the place in the caller's words."""
    try:
        loaded = _wine_features.load(named)
    except ValidationError as error:
        complaints = {place_of.get(name, name): found for name, found in error.messages_dict.items()}
        raise ValidationError(complaints) from None
    return [loaded[name] for name in FEATURE_NAMES]


def _did_you_mean(spelling: str) -> str:
    close = difflib.get_close_matches(spelling[:64].casefold(), [name.casefold() for name in FEATURE_NAMES], n=1)
    if not close:
        return "There is no such feature."
    name = next(name for name in FEATURE_NAMES if name.casefold() == close[0])
    return f"There is no such feature; did you mean {name}?"
