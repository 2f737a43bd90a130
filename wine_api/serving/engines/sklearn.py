"""scikit-learn itself, as an engine: right for every model, and the measure of all other engines."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from wine_api.serving.engines.base import Answers
from wine_api.serving.wine import Label, Matrix


class SklearnEngine:
    """Calls the estimator's own `predict` and `predict_proba`."""

    name = "sklearn"

    def __init__(
        self, estimator: Any, *, columns: Sequence[int] | None, classes: Sequence[Label] | None, probabilities: bool
    ) -> None:
        """Take an *estimator* that was vetted.

        *columns* are the indexes into FEATURES of what it expects, or None if that is their order. *classes* are its
        labels as the wire shows them, or None for a regressor. *probabilities*: it has `predict_proba`.
        """
        self._estimator = estimator
        self._columns = None if columns is None else list(columns)
        self._classes = classes
        self._probabilities = probabilities
        # Forests predict through joblib's threads, which change the filters of `warnings` for the whole process while
        # they run: two at once leave them changed for good.
        self._lock = threading.Lock()

    def predict(self, wines: Matrix) -> Answers:
        """Answer for *wines*, shape (rows, 11)."""
        rows = wines if self._columns is None else wines[:, self._columns]
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = self._estimator.predict(rows)
            probabilities = self._estimator.predict_proba(rows) if self._probabilities else None
        if self._classes is None:
            return Answers([float(value) for value in np.ravel(predicted)], None, None)
        positions = np.searchsorted(self._estimator.classes_, predicted)
        labels = [self._classes[position] for position in positions]
        if probabilities is None:
            return Answers(labels, None, None)
        return Answers(labels, probabilities[np.arange(len(rows)), positions], probabilities)
