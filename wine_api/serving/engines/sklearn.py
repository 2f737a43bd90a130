"""scikit-learn itself, as an engine: right for every model, and the measure of all other engines."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from wine_api.serving.engines.base import SKLEARN, Answers, Floats, Labels, Positions, arranged, confidences_of
from wine_api.serving.structure import type_name
from wine_api.serving.wine import Label, Matrix

# Those whose `predict` computes `predict_proba` and takes the class with the highest: asking for both would be asking
# twice. Others decide in their own ways, which differ from that where two classes are equally probable.
_PREDICT_THE_MOST_PROBABLE = frozenset(
    {
        "sklearn.calibration.CalibratedClassifierCV",
        "sklearn.ensemble._bagging.BaggingClassifier",
        "sklearn.ensemble._forest.ExtraTreesClassifier",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._voting.VotingClassifier",  # when it votes by probabilities; else it has none
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.ExtraTreeClassifier",
    }
)


class SklearnEngine:
    """Calls the estimator's own `predict` and `predict_proba`."""

    name = SKLEARN

    def __init__(
        self, estimator: Any, *, columns: Sequence[int] | None, classes: Sequence[Label] | None, probabilities: bool
    ) -> None:
        """Take an *estimator* that was vetted.

        *columns* are the indexes into FEATURES of what it expects, or None if that is their order. *classes* are its
        labels as the wire shows them, or None for a regressor. *probabilities*: it has `predict_proba`.
        """
        self._estimator = estimator
        self._columns = None if columns is None else list(columns)
        self._labels = None if classes is None else Labels(classes)
        self._probabilities = probabilities
        self._most_probable = probabilities and _predicts_the_most_probable(estimator)
        # Forests predict through joblib's threads, which change the filters of `warnings` for the whole process while
        # they run: two at once leave them changed for good.
        self._lock = threading.Lock()

    def predict(self, wines: Matrix) -> Answers:
        """Answer for *wines*, shape (rows, 11)."""
        rows = arranged(wines, self._columns)
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._labels is None:
                return Answers(np.ravel(self._estimator.predict(rows)).astype(np.float64).tolist(), None, None)
            positions, probabilities = self._classify(rows)
        labels = self._labels.at(positions)
        if probabilities is None:
            return Answers(labels, None, None, positions)
        return Answers(labels, confidences_of(probabilities, positions), probabilities, positions)

    def _classify(self, rows: Matrix) -> tuple[Positions, Floats | None]:
        if self._most_probable:
            probabilities = self._estimator.predict_proba(rows)
            return np.argmax(probabilities, axis=1), probabilities
        positions = np.searchsorted(self._estimator.classes_, self._estimator.predict(rows))
        return positions, self._estimator.predict_proba(rows) if self._probabilities else None


def _predicts_the_most_probable(estimator: Any) -> bool:
    while type_name(estimator) == "sklearn.pipeline.Pipeline":
        estimator = estimator.steps[-1][1]
    return type_name(estimator) in _PREDICT_THE_MOST_PROBABLE
