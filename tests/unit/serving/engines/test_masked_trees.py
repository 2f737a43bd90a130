"""Small trees as tables of bits add up to what scikit-learn says of them, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier

from tests.unit.serving.engines import served
from wine_api.serving.engines import masked_trees
from wine_api.serving.engines.masked_trees import MaskedTrees, fits
from wine_api.serving.engines.plain_trees import PlainTrees, read_predictors, read_trees
from wine_api.serving.engines.threshold_rows import threshold_rows

TABLE, QUALITY = served.wines()
NOTHING = np.zeros((1, 4))


def forest(**settings: Any) -> Any:
    return RandomForestClassifier(**{"n_estimators": 20, "random_state": 0, **settings}).fit(TABLE, QUALITY)


def plain(model: Any) -> PlainTrees:
    return read_trees([one.tree_ for one in np.ravel(model.estimators_)])


def total(model: Any, rows: Any) -> Any:
    """Return what the trees of *model* add up to."""
    said = np.zeros((len(rows), 4))
    for one in model.estimators_:
        said += one.tree_.predict(rows.astype(np.float32))
    return said


@pytest.mark.parametrize("leaves", [2, 3, 8, 9, 16, 17, 32, 33, 63, 64])
def test_trees_of_every_size_are_exact(leaves: int) -> None:
    model = forest(max_leaf_nodes=leaves)
    rows = threshold_rows(model, TABLE, 2000)

    sums = MaskedTrees(plain(model), np.float32).sums(rows, NOTHING)

    assert np.array_equal(sums, total(model, rows))


@pytest.mark.parametrize("rows", [1, 15, 16, 400])
def test_batches_of_every_size_are_exact(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_trees, "_BYTES_AT_ONCE", 20_000)
    model = forest(max_leaf_nodes=30)

    sums = MaskedTrees(plain(model), np.float32).sums(TABLE[:rows], NOTHING)

    assert np.array_equal(sums, total(model, TABLE[:rows]))


def test_trees_take_turns() -> None:
    model = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(TABLE, QUALITY)
    trees = MaskedTrees(plain(model), np.float32)
    trees.scale(model.learning_rate)
    start = model._raw_predict_init(TABLE[:1].astype(np.float32)).reshape(4, 1)

    sums = trees.sums(TABLE, start)

    assert np.array_equal(sums, model._raw_predict(TABLE.astype(np.float32)))


def test_values_of_double_precision_are_not_rounded() -> None:
    model = HistGradientBoostingRegressor(max_iter=5, random_state=0).fit(TABLE, QUALITY)
    rows = threshold_rows(model, TABLE, 2000)
    trees = MaskedTrees(read_predictors([one for trees in model._predictors for one in trees]), np.float64)

    sums = trees.sums(rows, model._baseline_prediction.reshape(1, 1))

    assert np.array_equal(sums[:, 0], model.predict(rows))


@pytest.mark.parametrize("rows", [1, 40])
def test_trees_without_questions_have_one_answer(rows: int) -> None:
    model = forest(min_impurity_decrease=9.0)

    sums = MaskedTrees(plain(model), np.float32).sums(TABLE[:rows], NOTHING)

    assert np.array_equal(sums, total(model, TABLE[:rows]))


def test_a_tree_of_more_leaves_than_bits_does_not_fit() -> None:
    assert fits(plain(forest(max_leaf_nodes=64)))
    assert not fits(plain(forest(max_leaf_nodes=65)))


def test_tables_that_are_too_large_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_trees, "MOST_BYTES", 1000)

    assert not fits(plain(forest(max_leaf_nodes=30)))
