"""The model in the package is small, whole, and answers as it did where it was trained."""

from __future__ import annotations

import hashlib
from pathlib import Path

import joblib
import numpy as np
import pytest

import wine_api
from wine_api.serving.artifact import ModelCard
from wine_api.serving.stores.base import ARTIFACT_NAME, CARD_NAME

BUNDLED = Path(wine_api.__file__).parent / "bundled" / "models"
LARGEST_SIZE = 3_000_000


@pytest.fixture(scope="module")
def artifact():
    return BUNDLED / "1.0.0" / ARTIFACT_NAME


@pytest.fixture(scope="module")
def card():
    return ModelCard.parse((BUNDLED / "1.0.0" / CARD_NAME).read_bytes())


def test_it_is_small_enough_to_travel_with_the_code(artifact):
    assert artifact.stat().st_size <= LARGEST_SIZE


def test_it_is_the_only_copy():
    assert [path.relative_to(BUNDLED).as_posix() for path in BUNDLED.rglob("*.joblib")] == [f"1.0.0/{ARTIFACT_NAME}"]


def test_its_card_names_its_bytes(artifact, card):
    content = artifact.read_bytes()

    assert card.version == "1.0.0"
    assert (card.sha256, card.size) == (hashlib.sha256(content).hexdigest(), len(content))


# A patch release of scikit-learn warns of every older file; whether it still answers the same is what is asked here.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
def test_it_answers_its_golden_rows_exactly(artifact, card):
    model = joblib.load(artifact)
    inputs = np.array(card.golden.inputs)

    assert model.predict(inputs).tolist() == card.golden.predictions
    assert model.predict_proba(inputs).tolist() == card.golden.probabilities


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
def test_it_is_a_plain_forest_over_the_qualities_that_occur(artifact, card):
    model = joblib.load(artifact)

    assert type(model).__name__ == "RandomForestClassifier"
    assert model.n_jobs is None
    assert model.classes_.dtype == np.int64
    assert model.classes_.tolist() == list(card.classes) == [3, 4, 5, 6, 7, 8, 9]
