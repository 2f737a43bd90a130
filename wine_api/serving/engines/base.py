"""What every engine can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wine_api.serving.wine import Label, Matrix


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of some wines, one entry a row.

    *probabilities* has shape (rows, classes), in the order of the model's classes, or is None for a model without
    them. *confidences*, shape (rows,), holds the probability of each label.
    """

    labels: list[Label]
    confidences: npt.NDArray[np.float64] | None
    probabilities: npt.NDArray[np.float64] | None


class Engine(Protocol):
    """Computes the answers of one model. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What `GET /model` calls it."""

    def predict(self, wines: Matrix) -> Answers:
        """Answer for *wines*, shape (rows, 11), in the order of FEATURES: exactly what scikit-learn would answer."""
