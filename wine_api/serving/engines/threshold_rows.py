"""Wines on which two ways to compute a model differ, if they differ anywhere: those that lie on its thresholds.

A tree compares a measurement with a threshold. Engines go wrong where the two are equal or neighbours: one rounds to
float32, the other does not. So a wine is made for each of some thresholds, with values on both sides of it, as near as
float32 and float64 allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from wine_api.serving.engines.base import Floats
from wine_api.serving.engines.plain_trees import Ints
from wine_api.serving.structure import parts_of, type_name
from wine_api.serving.wine import FEATURE_COUNT, Matrix

# Of each threshold: itself, its neighbours in float64, its nearest float32, the neighbours of that, and the middles
# between those, where rounding to float32 changes sides.
VARIANTS = 8
_LARGEST = float(np.finfo(np.float32).max)


def threshold_rows(estimator: Any, wines: Matrix, count: int) -> Matrix:
    """Return up to *count* rows on thresholds of *estimator*, in the order of columns that it expects.

    They are *wines*, shape (rows, 11) in that same order, of which one measurement is moved. Those of thresholds behind
    a scaler are moved to where the scaler brings them to the threshold.
    """
    random = np.random.default_rng(0)
    sources = list(_sources(estimator, []))
    with np.errstate(all="ignore"):
        rows = [
            _on_thresholds(features, thresholds, scalers, wines, count // len(sources) // VARIANTS, random)
            for features, thresholds, scalers in sources
        ]
    return _finite(np.concatenate(rows)) if rows else np.empty((0, FEATURE_COUNT))


def _finite(rows: Matrix) -> Matrix:
    """Leave out what scikit-learn would refuse: a tree that knew missing values may have infinite thresholds."""
    return rows[(np.abs(rows) < _LARGEST).all(axis=1)]


def _on_thresholds(
    features: Ints, thresholds: Floats, scalers: list[Any], wines: Matrix, count: int, random: np.random.Generator
) -> Matrix:
    chosen = random.choice(len(features), size=min(count, len(features)), replace=False)  # nosec B311
    rows = wines[random.integers(len(wines), size=len(chosen))]
    places = np.arange(len(chosen)), features[chosen]
    rows[places] = _before(scalers, rows, places, thresholds[chosen])
    moved = np.repeat(rows, VARIANTS, axis=0)
    moved[np.arange(len(moved)), np.repeat(features[chosen], VARIANTS)] = _variants(rows[places]).ravel()
    return moved


def _before(scalers: list[Any], rows: Matrix, places: tuple[Ints, Ints], thresholds: Floats) -> Floats:
    """Return the measurements that *scalers* bring to *thresholds*."""
    scaled = rows
    for scaler in scalers:
        scaled = scaler.transform(scaled)
    scaled = scaled.copy()
    scaled[places] = thresholds
    for scaler in reversed(scalers):
        scaled = scaler.inverse_transform(scaled)
    return np.asarray(scaled)[places]


def _variants(values: Floats) -> Floats:
    """Return the *values* and what is next to them, shape (values, VARIANTS)."""
    single = values.astype(np.float32)
    below, above = np.nextafter(single, np.float32(-np.inf)), np.nextafter(single, np.float32(np.inf))
    exact = single.astype(np.float64)
    around = [
        values,
        np.nextafter(values, -np.inf),
        np.nextafter(values, np.inf),
        exact,
        below.astype(np.float64),
        above.astype(np.float64),
        (exact + below) / 2,
        (exact + above) / 2,
    ]
    return np.stack(around, axis=1)


# Where thresholds are -------------------------------------------------------------------------------------------------


def _sources(estimator: Any, scalers: list[Any]) -> Iterator[tuple[Ints, Floats, list[Any]]]:
    """Yield the features and thresholds of each part of *estimator* with trees, and the scalers before it."""
    kind = type_name(estimator)
    if kind == "sklearn.pipeline.Pipeline":
        before = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        yield from _sources(estimator.steps[-1][1], [*scalers, *before])
    elif kind.startswith("sklearn.model_selection."):
        yield from _sources(estimator.best_estimator_, scalers)
    elif kind.startswith(("sklearn.ensemble._voting.", "sklearn.ensemble._stacking.")):
        for member in estimator.estimators_:
            yield from _sources(member, scalers)
    elif kind.startswith("sklearn.calibration."):
        for member in estimator.calibrated_classifiers_:
            yield from _sources(member.estimator, scalers)
    else:
        features, thresholds = _thresholds_in(estimator)
        if len(features):
            yield features, thresholds, scalers


def _thresholds_in(model: Any) -> tuple[Ints, Floats]:
    features: list[Any] = [np.empty(0, dtype=np.int64)]
    thresholds: list[Any] = [np.empty(0)]
    for part in parts_of(model):
        kind = type_name(part)
        if kind == "sklearn.tree._tree.Tree":
            inner = part.children_left != -1
            features.append(part.feature[inner])
            thresholds.append(part.threshold[inner])
        elif kind == "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
            inner = part.nodes["is_leaf"] == 0
            features.append(part.nodes["feature_idx"][inner])
            thresholds.append(part.nodes["num_threshold"][inner])
    return np.concatenate(features).astype(np.int64), np.concatenate(thresholds)
