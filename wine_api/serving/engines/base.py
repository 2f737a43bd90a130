"""What every engine can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wine_api.serving.wine import Label, Matrix

# What computes the answers of a model.
MERGED_TREES, LINEAR, SKLEARN = ENGINES = ("merged_trees", "linear", "sklearn")
# Why that is scikit-learn itself: none of the others computes such models, does so exactly, or could be built.
NOT_COVERED, PARITY_DIFFERS, BUILD_FAILED = FALLBACK_REASONS = ("not_covered", "parity_differs", "build_failed")

Floats = npt.NDArray[np.float64]
# Indexes into the classes of a model.
Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of some wines, one entry a row.

    *probabilities* has shape (rows, classes), in the order of the model's classes, or is None for a model without
    them. *confidences*, shape (rows,), holds the probability of each label. *positions*, shape (rows,), holds the index
    of each label in the model's classes, for those who count or write whole batches; it is None for a regressor.
    """

    labels: list[Label]
    confidences: Floats | None
    probabilities: Floats | None
    positions: Positions | None = None


class Engine(Protocol):
    """Computes the answers of one model. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What `GET /model` calls it."""

    def predict(self, wines: Matrix) -> Answers:
        """Answer for *wines*, shape (rows, 11), in the order of FEATURES: exactly what scikit-learn would answer."""


class Labels:
    """The labels of a model, ready to be looked up for a whole batch at once."""

    def __init__(self, classes: Sequence[Label]) -> None:
        self._classes = np.empty(len(classes), dtype=object)
        self._classes[:] = classes

    def at(self, positions: Positions) -> list[Label]:
        """Return the labels at *positions*, shape (rows,)."""
        labels: list[Label] = self._classes.take(positions).tolist()
        return labels


def confidences_of(probabilities: Floats, positions: Positions) -> Floats:
    """Return the probability of each label, shape (rows,), from those of all classes, shape (rows, classes)."""
    rows, classes = probabilities.shape
    return probabilities.take(positions if rows == 1 else positions + np.arange(0, rows * classes, classes))


def arranged(wines: Matrix, columns: Sequence[int] | None) -> Matrix:
    """Return the columns of *wines* in the order in which a model wants them.

    Row by row in memory whatever the order: a product of matrices rounds differently column by column.
    """
    return wines if columns is None else wines.take(columns, axis=1)
