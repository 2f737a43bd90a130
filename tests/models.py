"""Small models whose answers are known, and a folder of them that is used like a bucket."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.svm import LinearSVC

from wine_api.serving.stores.base import ARTIFACT_NAME, CARD_NAME, LATEST, version_key
from wine_api.serving.wine import FEATURES, Matrix
from wine_api.training.card import build_card
from wine_api.training.data import DataFile, Dataset

WINE = [7.4, 0.7, 0.0, 1.9, 0.076, 11.0, 34.0, 0.9978, 3.51, 0.56, 9.4]
WINE_BY_NAME = {feature.name: value for feature, value in zip(FEATURES, WINE, strict=True)}

# In training, everything lies within a tenth of this wine's values: any other wine is outside the range of the model.
_SPREAD = 0.1
_ROWS = 200
_CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def synthetic_wines() -> Matrix:
    """Return wines whose measurements lie around those of WINE."""
    random = np.random.default_rng(11)
    examples = np.array([value or 0.1 for value in WINE])
    return examples * random.uniform(1 - _SPREAD, 1 + _SPREAD, (_ROWS, len(examples)))


@dataclass(frozen=True)
class Model:
    """A fitted estimator and the file it makes."""

    estimator: Any
    wines: Matrix
    targets: Any

    @cached_property
    def content(self) -> bytes:
        buffer = io.BytesIO()
        joblib.dump(self.estimator, buffer)
        return buffer.getvalue()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def plain_version(self) -> str:
        """What a plain upload of this model to a folder is called."""
        return self.digest[:12]

    def answer(self, wine: list[float]) -> Any:
        return self.estimator.predict(np.array([wine])).tolist()[0]

    def confidence(self, wine: list[float]) -> float:
        return max(self.probabilities(wine))

    def probabilities(self, wine: list[float]) -> list[float]:
        return self.estimator.predict_proba(np.array([wine])).tolist()[0]

    def card(self, artifact: Path, version: str) -> bytes:
        """Write the card as `wine-api train` would."""
        source = DataFile("synthetic.csv", "0" * 64, len(self.wines))
        return build_card(
            model=self.estimator,
            dataset=Dataset(self.wines, self.targets, (source,)),
            metrics={"all_rows": {"accuracy": 0.75}},
            artifact=artifact,
            version=version,
            created_at=_CREATED_AT,
        )


class Models:
    """The models of the tests, each fitted when it is first needed. They give WINE the lower of their grades."""

    @cached_property
    def fives_and_sixes(self) -> Model:
        return _forest(5, 6)

    @cached_property
    def sevens_and_eights(self) -> Model:
        return _forest(7, 8)

    @cached_property
    def floats(self) -> Model:
        return _forest(5.0, 6.0)

    @cached_property
    def words(self) -> Model:
        return _forest("poor", "superb")

    @cached_property
    def regressor(self) -> Model:
        wines = synthetic_wines()
        grades = wines[:, -1] / 2
        return Model(LinearRegression().fit(wines, grades), wines, grades)

    @cached_property
    def without_probabilities(self) -> Model:
        wines = synthetic_wines()
        targets = _grades(wines, 5, 6)
        return Model(LinearSVC(random_state=0).fit(wines / wines.mean(axis=0), targets), wines, targets)


def _forest(low: Any, high: Any) -> Model:
    wines = synthetic_wines()
    targets = _grades(wines, low, high)
    estimator = RandomForestClassifier(n_estimators=4, max_depth=4, max_features=None, random_state=3)
    return Model(estimator.fit(wines, targets), wines, targets)


def _grades(wines: Matrix, low: Any, high: Any) -> Any:
    return np.where(wines[:, -1] < WINE[-1] * 1.02, low, high)


class ModelFolder:
    """A folder used like a bucket, filled as an operator fills it. Whoever reads sees each change whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)

    def publish(self, version: str, model: Model, change_card: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Place *model* with its card, changed by *change_card*, as *version*."""
        artifact = self._put(version_key(version), model.content)
        card = json.loads(model.card(artifact, version))
        if change_card is not None:
            change_card(card)
        self._put(version_key(version, CARD_NAME), json.dumps(card).encode())

    def promote(self, version: str) -> None:
        """Make *version* the latest."""
        self.upload((self.path / version_key(version)).read_bytes())

    def upload(self, content: bytes) -> None:
        """Place *content* as the latest, without a card of its own."""
        self._put(version_key(LATEST), content)

    def remove_latest(self) -> None:
        (self.path / version_key(LATEST)).unlink()

    def vanish(self) -> None:
        """Take the whole folder away: the store does not answer any more."""
        self.path.rename(self.path.with_name("away"))

    def come_back(self) -> None:
        """Undo `vanish`."""
        self.path.with_name("away").rename(self.path)

    def clear(self) -> None:
        shutil.rmtree(self.path / "models", ignore_errors=True)

    def _put(self, key: str, content: bytes) -> Path:
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_name(f".{ARTIFACT_NAME}.arriving")
        arriving.write_bytes(content)
        os.replace(arriving, path)
        return path
