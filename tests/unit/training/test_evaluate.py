"""Scores are honest: no wine is tested that was trained on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.training.synthetic import REPEATED, ROWS, synthetic_dataset
from wine_api.training.data import InvalidData
from wine_api.training.evaluate import evaluate, score, split


@pytest.fixture(scope="module")
def dataset():
    return synthetic_dataset()


def measurements(dataset, rows):
    return {tuple(wine) for wine in dataset.wines[rows].tolist()}


def test_no_wine_is_both_trained_on_and_tested(dataset):
    folds = list(split(dataset, folds=5, seed=0))

    shared = [measurements(dataset, train) & measurements(dataset, test) for train, test in folds]

    assert shared == [set()] * 5


def test_a_wine_that_was_tasted_twice_with_different_results_stays_in_one_fold(dataset):
    qualities = dataset.qualities.copy()
    qualities[-REPEATED:] = 11 - qualities[-REPEATED:]
    disputed = dataclasses.replace(dataset, qualities=qualities)

    folds = list(split(disputed, folds=5, seed=0))

    assert not any(measurements(disputed, train) & measurements(disputed, test) for train, test in folds)


def test_each_row_is_tested_once_and_trained_on_otherwise(dataset):
    folds = list(split(dataset, folds=5, seed=0))

    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(ROWS))
    assert all(sorted([*train, *test]) == list(range(ROWS)) for train, test in folds)


def test_each_fold_tests_every_quality(dataset):
    folds = list(split(dataset, folds=5, seed=0))

    assert all(set(dataset.qualities[test]) == {4, 5, 6, 7} for _, test in folds)


def test_a_quality_with_few_wines_is_no_obstacle(dataset):
    qualities = dataset.qualities.copy()
    qualities[100] = 9
    with_one_great_wine = dataclasses.replace(dataset, qualities=qualities)

    evaluation = evaluate(with_one_great_wine, folds=3, seed=0)

    assert evaluation.all_rows.rows == ROWS


def test_refuses_more_folds_than_there_are_wines_to_deal(dataset):
    with pytest.raises(InvalidData, match="too few wines for 200 folds"):
        list(split(dataset, folds=200, seed=0))


def test_scores_all_rows_and_distinct_wines(dataset):
    evaluation = evaluate(dataset, folds=3, seed=0)

    assert evaluation.all_rows.rows == ROWS
    assert evaluation.distinct_wines.rows == ROWS - REPEATED
    assert evaluation.all_rows.accuracy > evaluation.all_rows.majority_accuracy + 0.2


def test_the_same_seed_gives_the_same_scores(dataset):
    assert evaluate(dataset, folds=2, seed=1) == evaluate(dataset, folds=2, seed=1)


def test_calls_back_after_each_fold(dataset):
    calls = []

    evaluate(dataset, folds=3, seed=0, on_fold=lambda: calls.append("fold"))

    assert calls == ["fold"] * 3


def test_scores_are_what_their_names_say():
    actual = np.array([3, 5, 5, 6])
    predicted = np.array([5, 5, 6, 6])

    scores = score(actual, predicted)

    assert scores.accuracy == 0.5
    assert scores.mae == 0.75
    assert scores.within_one == 0.75
    assert scores.majority_accuracy == 0.5
    assert scores.macro_f1 == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)
    # One minus the mean squared distance (5 / 4), over that of all pairs (32 / 16): 3 is two points from 5, although
    # nobody gave a 4.
    assert scores.qwk == pytest.approx(1 - (5 / 4) / (32 / 16))
