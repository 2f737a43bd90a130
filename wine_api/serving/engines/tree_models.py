"""The formulas of models that are trees: single ones, forests and gradient boosting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wine_api.serving.engines.base import Floats, Positions
from wine_api.serving.engines.formula import Formula, NotCovered, highest, most_probable, softmax
from wine_api.serving.engines.masked_trees import MaskedTrees, fits
from wine_api.serving.engines.merged_trees import MergedTrees, double_precision, single_precision
from wine_api.serving.engines.plain_trees import PlainTrees, read_predictors, read_trees
from wine_api.serving.structure import type_name
from wine_api.serving.wine import Matrix

# Of boosted trees that are too large for tables of bits, scikit-learn's own loop computes more rows than these faster.
_FEW_ROWS_OF_BOOSTING = 3
_FEW_ROWS_OF_HIST_BOOSTING = 32
# Threads wait for each other after each tree, and must have something to do in between.
_ROWS_FOR_THREADS = 512

# Those that say the same of every wine.
_CONSTANT_STARTS = {
    "sklearn.dummy.DummyClassifier": ("prior", "most_frequent", "constant"),
    "sklearn.dummy.DummyRegressor": ("mean", "median", "quantile", "constant"),
}
_MULTINOMIAL = "sklearn._loss.loss.HalfMultinomialLoss"

Sums = Callable[[Matrix], Floats]


# Trees and forests ----------------------------------------------------------------------------------------------------


def tree(estimator: Any) -> Formula:
    """Return the formula of a decision tree: its own C code, without what is around it."""
    predict = estimator.tree_.predict

    def said(rows: Matrix) -> Floats:
        values: Floats = predict(_single(rows))
        return values

    return _of_values(said, estimator)


def forest(estimator: Any) -> Formula:
    """Return the formula of a random forest or of extra trees."""
    plain = read_trees([one.tree_ for one in estimator.estimators_])
    trees = _small_or_large(plain, estimator.n_features_in_)
    nothing = np.zeros((1, plain.values.shape[1]))
    count = len(estimator.estimators_)

    def mean(rows: Matrix) -> Floats:
        total = trees.sums(rows, nothing)
        total /= count
        return total

    return _of_values(mean, estimator)


def _small_or_large(plain: PlainTrees, features: int) -> MaskedTrees | MergedTrees:
    return MaskedTrees(plain, np.float32) if fits(plain) else MergedTrees(plain, features, single_precision)


def _of_values(values: Sums, estimator: Any) -> Formula:
    """Return the formula of a model whose trees hold *values*, shape (rows, outputs): probabilities, or one number."""
    if estimator.n_outputs_ != 1:
        raise NotCovered("more than one output")
    return most_probable(values) if hasattr(estimator, "classes_") else Formula(lambda rows: values(rows)[:, 0])


def _single(rows: Matrix) -> Any:
    """Return *rows* as decision trees take them: as float32, row by row in memory."""
    with np.errstate(over="ignore"):  # what is too large for a float32 is larger than all thresholds either way
        return np.ascontiguousarray(rows, dtype=np.float32)


# Gradient boosting ----------------------------------------------------------------------------------------------------


def gradient_boosting(estimator: Any) -> Formula:
    """Return the formula of a `GradientBoostingClassifier` or `GradientBoostingRegressor`."""
    start = _constant_start(estimator)
    plain = read_trees([one.tree_ for one in estimator.estimators_.ravel()])
    trees = _small_or_large(plain, estimator.n_features_in_)
    trees.scale(estimator.learning_rate)

    def few(rows: Matrix) -> Floats:
        return trees.sums(rows, start)

    scores = (
        few if isinstance(trees, MaskedTrees) else _few_or_many(few, _FEW_ROWS_OF_BOOSTING, _stages(estimator, start))
    )
    if not hasattr(estimator, "classes_"):
        return Formula(lambda rows: scores(rows).ravel())
    return _chooses(scores, len(start), estimator, lambda score: score >= 0)


def _constant_start(boosting: Any) -> Floats:
    """Return what *boosting* starts from, shape (columns, 1), if that is the same for every wine."""
    start = boosting.init_
    known = _CONSTANT_STARTS.get(type_name(start), ())
    if not isinstance(start, str) and getattr(start, "strategy", None) not in known:
        raise NotCovered("a start that depends on the wine")
    raw: Floats = boosting._raw_predict_init(np.zeros((1, boosting.n_features_in_), dtype=np.float32))
    return raw.reshape(-1, 1)


def _stages(boosting: Any, start: Floats) -> Sums:
    from sklearn.ensemble._gradient_boosting import predict_stages

    trees, rate = boosting.estimators_, boosting.learning_rate

    def add_stages(rows: Matrix) -> Floats:
        sums = np.empty((len(rows), len(start)))
        sums[:] = start.ravel()
        predict_stages(trees, _single(rows), rate, sums)
        return sums

    return add_stages


def _few_or_many(few: Sums, most: int, many: Sums) -> Sums:
    return lambda rows: few(rows) if len(rows) <= most else many(rows)


def _chooses(scores: Sums, columns: int, estimator: Any, positive: Callable[[Floats], Any]) -> Formula:
    """Return the formula of a boosted classifier, which chooses by its *scores*.

    With two classes there is one column, and the second class is chosen where the score is *positive*.
    """
    loss = estimator._loss
    if columns > 1:
        if type_name(loss) != _MULTINOMIAL:
            raise NotCovered("an unknown loss")
        return Formula(scores, highest, softmax)

    def second(raw: Floats) -> Positions:
        chosen: Positions = positive(raw).astype(np.intp)
        return chosen

    return Formula(lambda rows: scores(rows).ravel(), second, loss.predict_proba)


# Hist gradient boosting -----------------------------------------------------------------------------------------------


def hist_gradient_boosting(estimator: Any) -> Formula:
    """Return the formula of a `HistGradientBoostingClassifier` or `HistGradientBoostingRegressor`."""
    if estimator._preprocessor is not None or estimator.is_categorical_ is not None:
        raise NotCovered("categories")
    start = np.reshape(estimator._baseline_prediction, (-1, 1)).astype(np.float64)
    plain = read_predictors([one for trees in estimator._predictors for one in trees])
    small = fits(plain)
    trees = MaskedTrees(plain, np.float64) if small else MergedTrees(plain, estimator.n_features_in_, double_precision)

    def few(rows: Matrix) -> Floats:
        # Column by column in memory, as scikit-learn has it: what follows adds columns, and rounds by their order.
        return np.asfortranarray(trees.sums(rows, start))

    scores = few if small else _few_or_many(few, _FEW_ROWS_OF_HIST_BOOSTING, _rounds(estimator, start))
    if not hasattr(estimator, "classes_"):
        link = estimator._loss.link
        return Formula(lambda rows: link.inverse(scores(rows).ravel()))
    return _chooses(scores, len(start), estimator, lambda score: score > 0)


def _rounds(boosting: Any, start: Floats) -> Sums:
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

    rounds = boosting._predictors
    categories = boosting._bin_mapper.make_known_categories_bitsets()
    most_threads = _openmp_effective_n_threads()

    def add_rounds(rows: Matrix) -> Floats:
        threads = most_threads if len(rows) >= _ROWS_FOR_THREADS else 1
        sums = np.empty((len(rows), len(start)), order="F")
        sums[:] = start.ravel()
        for trees in rounds:
            for column, one in enumerate(trees):
                sums[:, column] += one.predict(rows, *categories, threads)
        return sums

    return add_rounds
