"""Many trees that were merged into one add up to what they say one by one, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier

from tests.unit.serving.engines import served
from wine_api.serving.engines import merged_trees
from wine_api.serving.engines.merged_trees import MergedTrees, double_precision, single_precision
from wine_api.serving.engines.plain_trees import read_predictors, read_trees
from wine_api.serving.engines.threshold_rows import threshold_rows

TABLE, QUALITY = served.wines()
NOTHING = np.zeros((1, 4))


def forest(trees: int, **settings: Any) -> Any:
    return RandomForestClassifier(trees, random_state=0, **settings).fit(TABLE, QUALITY)


def merged(model: Any) -> MergedTrees:
    return MergedTrees(read_trees([one.tree_ for one in model.estimators_]), 11, single_precision)


def total(model: Any, rows: Any) -> Any:
    """Return what the trees of *model* add up to."""
    said = np.zeros((len(rows), 4))
    for one in model.estimators_:
        said += one.tree_.predict(rows.astype(np.float32))
    return said


@pytest.mark.parametrize("trees", [1, 2, 3, 31, 64, 65])
def test_any_number_of_trees_is_exact(trees: int) -> None:
    model = forest(trees)
    rows = threshold_rows(model, TABLE, 1000)

    assert np.array_equal(merged(model).sums(rows, NOTHING), total(model, rows))


@pytest.mark.parametrize("rows", [1, 2, 127, 128, 400])
@pytest.mark.parametrize("at_once", [1, 100, 4096])
def test_batches_of_every_size_are_exact(rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_trees, "_WALKS_AT_ONCE", at_once)
    model = forest(60)

    assert np.array_equal(merged(model).sums(TABLE[:rows], NOTHING), total(model, TABLE[:rows]))


def test_trees_without_questions_have_one_answer() -> None:
    model = forest(3, min_impurity_decrease=9.0)

    assert np.array_equal(merged(model).sums(TABLE, NOTHING), total(model, TABLE))


@pytest.mark.parametrize("rows", [1, 100])
def test_values_of_double_precision_are_not_rounded(rows: int) -> None:
    model = HistGradientBoostingRegressor(max_iter=5, max_leaf_nodes=None, min_samples_leaf=1).fit(TABLE, QUALITY)
    critical = threshold_rows(model, TABLE, 800)[:rows]
    trees = MergedTrees(read_predictors([one for trees in model._predictors for one in trees]), 11, double_precision)

    sums = trees.sums(critical, model._baseline_prediction.reshape(1, 1))

    assert np.array_equal(sums[:, 0], model.predict(critical))


def test_equal_leaves_are_kept_once() -> None:
    model = forest(10, min_samples_leaf=1, bootstrap=False)
    leaves = sum(one.get_n_leaves() for one in model.estimators_)

    kept = merged(model)._values

    assert len(kept) < leaves / 10
