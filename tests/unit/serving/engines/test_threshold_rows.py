"""Rows lie on the thresholds of a model, and as near to them as numbers can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.serving.engines import served
from wine_api.serving.engines.threshold_rows import VARIANTS, threshold_rows

TABLE, _ = served.wines()


def thresholds_of(forest: Any) -> set[tuple[int, float]]:
    """Return each feature and threshold that *forest* asks for."""
    trees = [one.tree_ for one in forest.estimators_]
    return {
        (feature, threshold)
        for tree in trees
        for feature, threshold in zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True)
        if feature >= 0
    }


def test_each_row_has_a_value_at_a_threshold_or_next_to_it() -> None:
    forest = served.classifier("forest").estimator
    thresholds = np.array(sorted(thresholds_of(forest)))

    rows = threshold_rows(forest, TABLE, 400)

    for row in rows:
        near = np.abs(row[thresholds[:, 0].astype(int)] - thresholds[:, 1])
        assert near.min() < 1e-5


def test_both_sides_of_a_threshold_are_there() -> None:
    forest = served.classifier("forest").estimator
    first = threshold_rows(forest, TABLE, VARIANTS)

    moved = first[:, (first != first[0]).any(axis=0)].ravel()

    assert len(moved) == VARIANTS
    assert moved[1] < moved[0] < moved[2]
    assert moved[1] == np.nextafter(moved[0], 0)
    assert np.float32(moved[4]) < np.float32(moved[3]) < np.float32(moved[5])


@pytest.mark.parametrize("kind", ["scaled forest", "robust forest", "twice scaled forest", "nested pipelines"])
def test_a_scaler_brings_the_rows_to_the_thresholds(kind: str) -> None:
    pipeline = served.classifier(kind).estimator
    forest = pipeline.steps[-1][1]
    *before, forest = (
        [pipeline[:-1], *(forest[:-1], forest[-1])] if hasattr(forest, "steps") else [pipeline[:-1], forest]
    )
    rows = threshold_rows(pipeline, TABLE, 400)
    thresholds = np.array(sorted(thresholds_of(forest)))

    for step in before:
        rows = step.transform(rows)

    nearest = [np.abs(row[thresholds[:, 0].astype(int)] - thresholds[:, 1]).min() for row in rows]
    assert max(nearest) < 1e-5


def test_members_of_an_ensemble_are_all_asked() -> None:
    voting = served.classifier("voting").estimator

    rows = threshold_rows(voting, TABLE, 400)

    assert 300 < len(rows) <= 400


@pytest.mark.parametrize("kind", ["isotonic calibration", "grid search", "stacking", "hist gradient boosting"])
def test_thresholds_are_found_inside_of_other_models(kind: str) -> None:
    assert len(threshold_rows(served.classifier(kind).estimator, TABLE, 400)) > 100


def test_a_model_without_trees_has_none() -> None:
    assert threshold_rows(served.regressor("ridge").estimator, TABLE, 400).shape == (0, 11)


def test_the_wines_stay_as_they_are() -> None:
    before = TABLE.copy()

    threshold_rows(served.classifier("scaled forest").estimator, TABLE, 400)

    assert np.array_equal(TABLE, before)
