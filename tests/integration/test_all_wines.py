"""Every wine of the two UCI tables is accepted, and answered as scikit-learn itself would.

Needs the tables, which are not part of the project: see docs/training.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import joblib
import numpy as np
import pytest

import wine_api
from tests.models import ModelFolder, Models
from tests.service import running_app
from wine_api.config import Settings

DATA = Path(os.environ.get("WINE_DATA") or Path(__file__).parents[3] / "shared" / "data")
TABLES = [DATA / "winequality-red.csv", DATA / "winequality-white.csv"]
BUNDLED = Path(wine_api.__file__).parent / "bundled" / "models" / "1.0.0" / "wine_quality_model.joblib"
ROWS = 6497

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the UCI wine tables are not here; put them into a folder and name it in WINE_DATA"
)


@pytest.fixture(scope="module")
def wines():
    """All wines of both tables, read without any of our code."""
    return np.vstack([np.genfromtxt(table, delimiter=";", skip_header=1)[:, :-1] for table in TABLES])


@pytest.fixture(scope="module")
def estimator():
    return joblib.load(BUNDLED)


@pytest.fixture(scope="module")
def answers(tmp_path_factory, wines):
    """What the service with the bundled model says of all wines."""
    folder = tmp_path_factory.mktemp("bundled")
    with running_app(Settings(state_dir=folder / "state", model_cache_dir=folder / "cache")) as app:
        answer = app.test_client().post("/predict/batch?include=probabilities", json={"features_list": wines.tolist()})
    assert answer.status_code == 200
    return answer.json["predictions"]


def test_every_wine_is_accepted(wines, answers):
    assert len(wines) == len(answers) == ROWS


def test_every_label_is_scikit_learns(wines, answers, estimator):
    assert [answer["prediction"] for answer in answers] == estimator.predict(wines).tolist()


def test_every_confidence_is_scikit_learns(wines, answers, estimator):
    expected = estimator.predict_proba(wines).max(axis=1)

    confidences = np.array([answer["confidence"] for answer in answers])

    assert np.abs(confidences - expected).max() <= 1e-9


def test_every_probability_is_scikit_learns(wines, answers, estimator):
    expected = estimator.predict_proba(wines)
    names = [str(label) for label in estimator.classes_.tolist()]

    probabilities = np.array([[answer["probabilities"][name] for name in names] for answer in answers])

    assert np.abs(probabilities - expected).max() <= 1e-9


def test_the_bundled_model_has_seen_all_of_them(answers):
    assert not [answer for answer in answers if "warnings" in answer]


def test_a_narrower_model_warns_of_the_wines_it_has_never_seen(tmp_path, wines):
    model = Models().fives_and_sixes
    outside = (wines < model.wines.min(axis=0)) | (wines > model.wines.max(axis=0))
    folder = ModelFolder(tmp_path / "store")
    folder.publish("1.0", model)
    folder.promote("1.0")
    settings = Settings(state_dir=tmp_path / "state", model_cache_dir=tmp_path / "cache", model_dir=folder.path)

    with running_app(settings) as app:
        answer = app.test_client().post("/predict/batch", json={"features_list": wines.tolist()})

    assert answer.status_code == 200
    warnings = [len(row.get("warnings", [])) for row in answer.json["predictions"]]
    assert warnings == outside.sum(axis=1).tolist()
    assert any(warnings)
