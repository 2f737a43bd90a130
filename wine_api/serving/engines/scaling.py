"""The scalers that may stand before a model, as functions of plain arrays: scikit-learn's own operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wine_api.serving.engines.formula import NotCovered
from wine_api.serving.structure import type_name
from wine_api.serving.wine import Matrix

Transform = Callable[[Matrix], Matrix]


def transform_of(scaler: Any) -> Transform:
    """Return what *scaler* does to rows, which it leaves as they are, or raise `NotCovered`."""
    make = _SCALERS.get(type_name(scaler))
    if make is None:
        raise NotCovered(type(scaler).__name__)
    return make(scaler)


def _standard(scaler: Any) -> Transform:
    return _shift_and_divide(
        scaler.mean_ if scaler.with_mean else None,
        scaler.scale_ if scaler.with_std else None,
    )


def _robust(scaler: Any) -> Transform:
    return _shift_and_divide(
        scaler.center_ if scaler.with_centering else None,
        scaler.scale_ if scaler.with_scaling else None,
    )


def _shift_and_divide(center: Any, scale: Any) -> Transform:
    if center is None:
        return (lambda rows: rows) if scale is None else (lambda rows: rows / scale)
    if scale is None:
        return lambda rows: rows - center

    def both(rows: Matrix) -> Matrix:
        scaled: Matrix = rows - center
        scaled /= scale
        return scaled

    return both


def _min_max(scaler: Any) -> Transform:
    low, high = scaler.feature_range

    def scaled(rows: Matrix) -> Matrix:
        between: Matrix = rows * scaler.scale_
        between += scaler.min_
        return np.clip(between, low, high, out=between) if scaler.clip else between

    return scaled


_SCALERS: dict[str, Callable[[Any], Transform]] = {
    "sklearn.preprocessing._data.StandardScaler": _standard,
    "sklearn.preprocessing._data.RobustScaler": _robust,
    "sklearn.preprocessing._data.MinMaxScaler": _min_max,
}
