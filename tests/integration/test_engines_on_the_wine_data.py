"""On the real wines, and on many that are like them, the fast engines say exactly what scikit-learn says.

Needs the two UCI tables, which are not part of the project: see docs/training.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.unit.serving.engines import served
from wine_api.serving.engines.choice import choose_engine
from wine_api.training.data import read_dataset

DATA = Path(os.environ.get("WINE_DATA") or Path(__file__).parents[3] / "shared" / "data")

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the UCI wine tables are not here; put them into a folder and name it in WINE_DATA"
)

PERTURBED = 10_000

MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(100, n_jobs=2, random_state=0),
    "scaled forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(30, n_jobs=2, random_state=0)),
    "forest regressor": lambda: RandomForestRegressor(30, n_jobs=2, random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=15, random_state=0),
    "hist gradient boosting": lambda: HistGradientBoostingClassifier(max_iter=30, random_state=0),
    "voting": lambda: VotingClassifier(
        [
            ("forest", RandomForestClassifier(30, n_jobs=2, random_state=0)),
            ("extra trees", ExtraTreesClassifier(30, n_jobs=2, random_state=0)),
            ("logistic", make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))),
        ],
        voting="soft",
    ),
    "scaled logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
}


@pytest.fixture(scope="module")
def dataset():
    return read_dataset([DATA / "winequality-red.csv", DATA / "winequality-white.csv"])


@pytest.fixture(scope="module")
def perturbed(dataset):
    """Wines like the real ones, with as many digits as a measurement has."""
    random = np.random.default_rng(0)
    drawn = dataset.wines[random.integers(len(dataset.wines), size=PERTURBED)]
    steps = random.integers(-3, 4, size=drawn.shape)
    return np.abs(np.round(drawn + steps * np.round(dataset.wines.std(axis=0) / 10, 4), 5))


@pytest.mark.parametrize("kind", MODELS)
def test_says_exactly_what_scikit_learn_says(kind, dataset, perturbed):
    vetted = served.vetted(MODELS[kind](), dataset.wines, dataset.qualities)
    scikit_learn = served.reference(vetted)

    engine, reason = choose_engine(vetted)

    assert reason is None
    for wines in (dataset.wines, perturbed, perturbed[:1], perturbed[:20], perturbed[:200]):
        assert served.equal(engine.predict(wines), scikit_learn.predict(wines))
