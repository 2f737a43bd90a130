"""The formulas of linear models."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit  # type: ignore[import-untyped]  # it publishes no types

from wine_api.serving.engines.base import Floats, Positions
from wine_api.serving.engines.formula import Formula, NotCovered, highest, softmax
from wine_api.serving.wine import Matrix


def logistic_regression(estimator: Any) -> Formula:
    """Return the formula of a `LogisticRegression`."""
    if estimator.coef_.ndim != 2 or len(estimator.coef_) not in (1, len(estimator.classes_)):
        raise NotCovered("coefficients of an unusual shape")
    if len(estimator.classes_) > 2:
        return Formula(_product(estimator.coef_.T, estimator.intercept_), highest, softmax, uses_trees=False)
    product = _product(estimator.coef_.T, estimator.intercept_)
    return Formula(lambda rows: product(rows).reshape(-1), _second_if_positive, _of_two, uses_trees=False)


def linear_regression(estimator: Any) -> Formula:
    """Return the formula of a regression that is a sum of its features, each times its coefficient."""
    if estimator.coef_.ndim != 1:
        raise NotCovered("more than one output")
    return Formula(_product(estimator.coef_, estimator.intercept_), uses_trees=False)


def _product(coefficients: Any, intercept: Any) -> Any:
    def product(rows: Matrix) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            scores: Floats = rows @ coefficients + intercept
        if not np.isfinite(scores).all():
            # A measurement of 1e300: scikit-learn refuses it too, and infinity less infinity is no probability.
            raise ValueError("A wine is too far out for the model.")
        return scores

    return product


def _second_if_positive(scores: Floats) -> Positions:
    return (scores > 0).astype(np.intp)


def _of_two(scores: Floats) -> Floats:
    second = expit(scores)
    return np.stack([1 - second, second], axis=1)
