"""What a model takes and what it answers: eleven measurements in, one label out, whatever it was trained on.

A model's own column order and labels are found out here once, and its parts are set so that it can serve: without
feature names, threads or chatter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.pipeline import Pipeline

from wine_api.errors import ModelRejected
from wine_api.serving.structure import parts_of
from wine_api.serving.wine import FEATURE_COUNT, FEATURE_NAMES, Label, feature_name

GATE = "shape"

# What people call the list of columns that they keep beside a model.
_NAME_LISTS = frozenset(
    {"columns", "feature_columns", "feature_names", "feature_names_in_", "feature_order", "features"}
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What goes into a model and comes out of it.

    *columns* are, in the order in which the model wants them, the indexes into FEATURES; None if that is their order.
    *classes* is None for a regressor.
    """

    columns: tuple[int, ...] | None
    classes: tuple[Label, ...] | None
    has_probabilities: bool


def refused(reason: str, detail: str) -> ModelRejected:
    """Return the error for a model that takes or answers something else."""
    return ModelRejected(GATE, reason, detail)


# One estimator --------------------------------------------------------------------------------------------------------


def estimator_in(artifact: object) -> tuple[Any, Sequence[Any] | None]:
    """Return the one estimator that *artifact* stands for, and the names of columns that came beside it, if any."""
    names = None
    if isinstance(artifact, dict):
        artifact, names = _assembled(artifact)
    if not isinstance(artifact, BaseEstimator):
        raise refused("not_an_estimator", f"The file holds a {type(artifact).__name__}, not a scikit-learn estimator.")
    if not hasattr(artifact, "predict"):
        raise refused("no_predict", f"A {type(artifact).__name__} cannot predict.")
    return artifact, names


def _assembled(parts: dict[Any, Any]) -> tuple[Any, Sequence[Any] | None]:
    """Make one Pipeline of a dictionary of a model and a scaler. Whatever else would change the answer is refused."""
    if "model" not in parts:
        raise refused("not_an_estimator", "The file holds a dictionary without the key 'model'.")
    for key, part in parts.items():
        if key not in ("model", "scaler") and any(hasattr(part, verb) for verb in ("predict", "transform")):
            raise refused("unknown_part", f"It is not known what the part {_shown(key)} does to the answer.")
    model, scaler = parts["model"], parts.get("scaler")
    names = next((parts[key] for key in sorted(_NAME_LISTS & parts.keys()) if _is_list_of_text(parts[key])), None)
    if scaler is None:
        return model, names
    if not hasattr(scaler, "transform") or not hasattr(model, "predict"):
        raise refused("not_an_estimator", "The model or the scaler in the file is not a scikit-learn estimator.")
    scaled, expected = _names_of(scaler), _names_of(model)
    if scaled is not None and expected is not None and scaled != expected:
        raise refused("conflicting_order", "The model and its scaler were trained on different columns.")
    return Pipeline([("scaler", scaler), ("model", model)]), names


def _is_list_of_text(value: Any) -> bool:
    items = value.tolist() if isinstance(value, np.ndarray) else value
    return isinstance(items, list | tuple) and bool(items) and all(isinstance(item, str) for item in items)


# What goes in ---------------------------------------------------------------------------------------------------------


def columns_of(estimator: Any, names_beside: Sequence[Any] | None) -> tuple[int, ...] | None:
    """Return which of FEATURES the columns of *estimator* are, or None if they are FEATURES in their order."""
    names = _names_of(estimator)
    if names is None:
        names = _names_inside(estimator)
    count = _count_of(estimator) or (None if names is None else len(names))
    if count not in (None, FEATURE_COUNT):
        raise refused("wrong_feature_count", _wrong_count(count, names))
    order = None if names is None else _order_of(names)
    if names_beside is not None:
        beside = _order_of(list(names_beside))
        if order is not None and beside != order:
            raise refused("conflicting_order", "The model and the list of columns beside it do not agree.")
        order = beside
    return None if order is None or order == tuple(range(FEATURE_COUNT)) else order


def _first_step(estimator: Any) -> Any:
    """Return what sees the input first: a Pipeline may begin with steps that pass it through."""
    while isinstance(estimator, Pipeline):
        estimator = next((step for _, step in estimator.steps if step not in (None, "passthrough")), None)
    return estimator


def _names_of(estimator: Any) -> list[Any] | None:
    names = getattr(_first_step(estimator), "feature_names_in_", None)
    return None if names is None else list(names)


def _count_of(estimator: Any) -> int | None:
    count = getattr(_first_step(estimator), "n_features_in_", None)
    return count if isinstance(count, int) else None


def _names_inside(estimator: Any) -> list[Any] | None:
    """Return the names that a part knows, where the whole does not, if they are those of a wine."""
    known = [names for part in parts_of(estimator) if (names := vars_of(part).get("feature_names_in_")) is not None]
    wines = {_order_of(list(names)) for names in known if {*map(_feature, names)} == {*FEATURE_NAMES}}
    if len(wines) > 1:
        raise refused("conflicting_order", "The parts of the model were trained on columns in different orders.")
    return [FEATURE_NAMES[index] for order in wines for index in order] or None


def _feature(name: Any) -> str | None:
    return feature_name(name) if isinstance(name, str) else None


def _order_of(names: list[Any]) -> tuple[int, ...]:
    if len(names) != FEATURE_COUNT:
        raise refused("wrong_feature_count", _wrong_count(len(names), names))
    unknown = _unknown(names)
    if unknown:
        raise refused("wrong_feature_names", f"The model was trained on other columns: {unknown}.")
    found = [_feature(name) for name in names]
    if len(set(found)) != FEATURE_COUNT:
        raise refused("wrong_feature_names", "The model was trained on a column that is there twice.")
    return tuple(FEATURE_NAMES.index(str(name)) for name in found)


def _wrong_count(count: int | None, names: Sequence[Any] | None) -> str:
    unknown = _unknown(names or ())
    return f"The model takes {count} features, not {FEATURE_COUNT}" + (f"; not known: {unknown}." if unknown else ".")


def _unknown(names: Iterable[Any]) -> str:
    unknown = [name for name in names if _feature(name) is None]
    return ", ".join(_shown(name) for name in unknown[:3]) + (" and more" if len(unknown) > 3 else "")


def _shown(name: Any) -> str:
    """Return *name*, which came from a file, as it may stand in a message and in a log."""
    return re.sub(r"[^\w .()/%-]", "?", str(name) if isinstance(name, str | int) else type(name).__name__)[:40]


# What comes out -------------------------------------------------------------------------------------------------------


def classes_of(estimator: Any) -> tuple[Label, ...] | None:
    """Return the labels of *estimator* in the order of its probabilities, or None for a regressor."""
    if is_regressor(estimator):
        return None
    if not is_classifier(estimator):
        raise refused("not_a_predictor", f"A {type(estimator).__name__} is neither a classifier nor a regressor.")
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        raise refused("multi_output", "The model does not predict one label.")
    if len(classes) < 2:
        raise refused("single_class", "The model knows a single class, so that it always gives the same answer.")
    labels = labels_of(classes)
    if len(set(labels)) != len(labels):
        raise refused("bad_classes", "Two classes of the model have the same label.")
    return labels


def labels_of(values: Iterable[Any]) -> tuple[Label, ...]:
    """Return the *values* of scikit-learn as labels: whole numbers are integers, words are words."""
    return tuple(_label(value) for value in values)


def _label(value: Any) -> Label:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, str):
        return plain
    if isinstance(plain, int):
        return int(plain)
    if isinstance(plain, float) and np.isfinite(plain):
        return int(plain) if plain.is_integer() else plain
    raise refused("bad_classes", f"A class of the model is a {type(plain).__name__}, neither a number nor a word.")


# Ready to serve -------------------------------------------------------------------------------------------------------


def vars_of(part: Any) -> dict[str, Any]:
    """Return the attributes of *part*, if it is an estimator."""
    return vars(part) if isinstance(part, BaseEstimator) else {}


def make_servable(estimator: Any) -> None:
    """Set every part of *estimator* so that it answers plain arrays, in this thread, in silence."""
    for part in parts_of(estimator):
        attributes = vars_of(part)
        if "_transformer_to_input_indices" in attributes and "transformers_" in attributes:
            attributes["transformers_"] = [_by_position(part, *entry) for entry in part.transformers_]
        attributes.pop("feature_names_in_", None)
        # A part that hands on a DataFrame needs pandas, which is not installed.
        attributes.pop("_sklearn_output_config", None)
        if attributes.get("n_jobs") is not None:
            attributes["n_jobs"] = 1
        if attributes.get("verbose"):
            attributes["verbose"] = 0


def _by_position(transformer: Any, name: str, step: Any, columns: Any) -> tuple[str, Any, Any]:
    """Let a step of a ColumnTransformer find its columns by number, where it was fitted to find them by name."""
    indexes = transformer._transformer_to_input_indices.get(name)
    if indexes is None or not _names_columns(columns):
        return name, step, columns
    return name, step, indexes[0] if isinstance(columns, str) else list(indexes)


def _names_columns(columns: Any) -> bool:
    if isinstance(columns, slice):
        return isinstance(columns.start, str) or isinstance(columns.stop, str)
    if isinstance(columns, str):
        return True
    return isinstance(columns, list | tuple | np.ndarray) and any(isinstance(column, str) for column in columns)
