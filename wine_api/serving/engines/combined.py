"""The formulas of models that are made of others: pipelines, searches, votes, stacks and calibrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit  # type: ignore[import-untyped]  # it publishes no types

from wine_api.serving.engines.base import Floats
from wine_api.serving.engines.formula import Formula, NotCovered, most_probable, themselves
from wine_api.serving.engines.scaling import transform_of
from wine_api.serving.wine import Matrix

FormulaOf = Callable[[Any], Formula]


def pipeline(estimator: Any, formula_of: FormulaOf) -> Formula:
    """Return the formula of a `Pipeline` of scalers and a model."""
    *before, (_, model) = estimator.steps
    formula = formula_of(model)
    for _, step in reversed(before):
        if step not in (None, "passthrough"):
            formula = formula.after(transform_of(step))
    return formula


def search(estimator: Any, formula_of: FormulaOf) -> Formula:
    """Return the formula of the best model of a `GridSearchCV` or `RandomizedSearchCV`."""
    return formula_of(estimator.best_estimator_)


# Votes ----------------------------------------------------------------------------------------------------------------


def voting_classifier(estimator: Any, formula_of: FormulaOf) -> Formula:
    """Return the formula of a `VotingClassifier` that takes the mean of probabilities."""
    if estimator.voting != "soft":
        raise NotCovered("a vote by labels")
    members = [formula_of(member) for member in estimator.estimators_]
    ask = [_probabilities_of(member) for member in members]
    weights = estimator._weights_not_none

    def mean(rows: Matrix) -> Floats:
        average: Floats = np.average(np.asarray([one(rows) for one in ask]), axis=0, weights=weights)
        return average

    return most_probable(mean, uses_trees=_any_uses_trees(members))


def voting_regressor(estimator: Any, formula_of: FormulaOf) -> Formula:
    """Return the formula of a `VotingRegressor`."""
    members = [formula_of(member) for member in estimator.estimators_]
    weights = estimator._weights_not_none

    def mean(rows: Matrix) -> Floats:
        average: Floats = np.average(np.asarray([one.scores(rows) for one in members]).T, axis=1, weights=weights)
        return average

    return Formula(mean, uses_trees=_any_uses_trees(members))


def _probabilities_of(formula: Formula) -> Callable[[Matrix], Floats]:
    if formula.probabilities is None:
        raise NotCovered("a regressor where a classifier should be")
    make = formula.probabilities
    return lambda rows: make(formula.scores(rows))


def _any_uses_trees(formulas: Sequence[Formula]) -> bool:
    return any(formula.uses_trees for formula in formulas)


# Stacks ---------------------------------------------------------------------------------------------------------------


def stacking(estimator: Any, formula_of: FormulaOf) -> Formula:
    """Return the formula of a `StackingClassifier` or `StackingRegressor`: its last model sees what the others say."""
    members = [formula_of(member) for member in estimator.estimators_]
    two_classes = hasattr(estimator, "classes_") and len(estimator.classes_) == 2
    ask = [
        _stacked(member, method, two_classes) for member, method in zip(members, estimator.stack_method_, strict=True)
    ]
    passthrough = estimator.passthrough
    last = formula_of(estimator.final_estimator_)

    def said(rows: Matrix) -> Matrix:
        columns = [one(rows) for one in ask]
        return np.hstack([*columns, rows] if passthrough else columns)

    return Formula(
        lambda rows: last.scores(said(rows)),
        last.positions,
        last.probabilities,
        uses_trees=_any_uses_trees([*members, last]),
    )


def _stacked(formula: Formula, method: str, two_classes: bool) -> Callable[[Matrix], Floats]:
    """Return what the last model sees of one member, shape (rows, columns)."""
    if method == "predict" and formula.positions is None:
        return lambda rows: formula.scores(rows).reshape(-1, 1)
    if method != "predict_proba":
        raise NotCovered(f"stacking by {method}")
    probabilities = _probabilities_of(formula)
    # The probability of the first of two classes says nothing new.
    return (lambda rows: probabilities(rows)[:, 1:]) if two_classes else probabilities


# Calibrations ---------------------------------------------------------------------------------------------------------


def calibrated(estimator: Any, formula_of: FormulaOf) -> Formula:
    """Return the formula of a `CalibratedClassifierCV`: the mean of its calibrated members."""
    classes = estimator.classes_
    members = [_Calibrated(one, classes, formula_of) for one in estimator.calibrated_classifiers_]

    def mean(rows: Matrix) -> Floats:
        total = np.zeros((len(rows), len(classes)))
        for member in members:
            total += member(rows)
        total /= len(members)
        return total

    return most_probable(mean, uses_trees=_any_uses_trees([member.formula for member in members]))


class _Calibrated:
    """One member: a model, and what turns its score of each class into a probability."""

    def __init__(self, member: Any, classes: Any, formula_of: FormulaOf) -> None:
        self.formula = formula_of(member.estimator)
        # A model that only has probabilities is calibrated by those, any other by its scores.
        self._by_probabilities = self.formula.probabilities is themselves
        self._calibrators = [_calibrator(calibrator) for calibrator in member.calibrators]
        self._columns = np.searchsorted(classes, member.estimator.classes_).tolist()
        self._classes = len(classes)
        if len(self._columns) != self._classes:
            raise NotCovered("a member that does not know all classes")

    def __call__(self, rows: Matrix) -> Floats:
        scores = self.formula.scores(rows)
        probabilities = self._of_two(scores) if self._classes == 2 else self._of_many(scores)
        probabilities[(probabilities > 1.0) & (probabilities <= 1.0 + 1e-5)] = 1.0
        return probabilities

    def _of_two(self, scores: Floats) -> Floats:
        of_second = scores[:, 1] if self._by_probabilities else scores
        second = self._calibrators[0](of_second)
        return np.stack([1.0 - second, second], axis=1)

    def _of_many(self, scores: Floats) -> Floats:
        probabilities = np.zeros((len(scores), self._classes))
        for column, score, calibrate in zip(self._columns, scores.T, self._calibrators, strict=True):
            probabilities[:, column] = calibrate(score)
        total = probabilities.sum(axis=1).reshape(-1, 1)
        even = np.full_like(probabilities, 1 / self._classes)
        return np.divide(probabilities, total, out=even, where=total != 0)


def _calibrator(calibrator: Any) -> Callable[[Floats], Floats]:
    kind = type(calibrator).__name__
    if kind == "_SigmoidCalibration":
        return lambda scores: expit(-(calibrator.a_ * scores + calibrator.b_))
    if kind == "IsotonicRegression" and calibrator.out_of_bounds == "clip":
        return lambda scores: calibrator.f_(np.clip(scores, calibrator.X_min_, calibrator.X_max_))
    raise NotCovered(f"calibration by {kind}")
