"""The bundled model is as good as its card says, and no worse than scikit-learn's default forest.

Needs the two UCI tables, which are not part of the project: see docs/training.md.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

import wine_api
from wine_api.training.data import read_dataset
from wine_api.training.evaluate import evaluate, score, split

DATA = Path(os.environ.get("WINE_DATA") or Path(__file__).parents[3] / "shared" / "data")
CARD = Path(wine_api.__file__).parent / "bundled" / "models" / "1.0.0" / "model_card.json"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the UCI wine tables are not here; put them into a folder and name it in WINE_DATA"
)


@pytest.fixture(scope="module")
def dataset():
    return read_dataset([DATA / "winequality-red.csv", DATA / "winequality-white.csv"])


@pytest.fixture(scope="module")
def card():
    return json.loads(CARD.read_text())


@pytest.fixture(scope="module")
def evaluation(dataset):
    return evaluate(dataset, folds=5, seed=0)


def test_the_bundled_model_was_trained_on_these_tables(dataset, card):
    files = [{"file": file.name, "sha256": file.sha256, "rows": file.rows} for file in dataset.files]

    assert card["training_data"] == files


def test_the_bundled_card_tells_the_scores_that_can_be_measured(evaluation, card):
    measured = evaluation.as_metrics()["all_rows"]

    # Not exact: another processor may round the logarithm of the entropy otherwise, and split a tie differently.
    assert card["metrics"]["all_rows"] == pytest.approx(measured, abs=0.005)


def test_the_model_is_no_worse_than_the_default_forest(dataset, evaluation):
    predicted = np.empty_like(dataset.qualities)
    for train, test in split(dataset, folds=5, seed=0):
        forest = RandomForestClassifier(n_estimators=100, random_state=0)
        forest.fit(dataset.wines[train], dataset.qualities[train])
        predicted[test] = forest.predict(dataset.wines[test])
    default = score(dataset.qualities, predicted)

    assert evaluation.all_rows.accuracy >= default.accuracy - 0.01
    assert evaluation.all_rows.qwk >= default.qwk - 0.02


def test_a_random_split_would_flatter_the_model(dataset, evaluation):
    rows = np.random.default_rng(0).permutation(len(dataset.wines))
    train, test = rows[1300:], rows[:1300]
    forest = RandomForestClassifier(n_estimators=50, random_state=0)

    leaky = forest.fit(dataset.wines[train], dataset.qualities[train]).score(
        dataset.wines[test], dataset.qualities[test]
    )

    assert leaky > evaluation.all_rows.accuracy + 0.05
