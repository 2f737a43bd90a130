"""From a valid request to an answer."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from wine_api.errors import Fault, InvalidRequest
from wine_api.metrics import Metrics
from wine_api.serving.engines.base import Answers
from wine_api.serving.holder import LoadedModel, ModelHolder
from wine_api.serving.wine import FEATURE_NAMES, Matrix

# No measurement of a wine; but a request may say so, and many models refuse it in words of their own.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """A value that lies outside what the model saw in training: the answer is a guess beyond the data."""

    feature: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """The answers of one request, all by one model. *warnings* has the warnings of each row that has any, by row."""

    model: LoadedModel
    wines: Matrix
    answers: Answers
    warnings: dict[int, list[OutOfRange]]


class Predictions:
    """Answers requests with the model in use."""

    def __init__(self, holder: ModelHolder, metrics: Metrics) -> None:
        self._holder = holder
        self._metrics = metrics

    def predict(self, wines: Matrix) -> Predicted:
        """Predict *wines*, shape (rows, 11), in the order of FEATURES.

        Raises `ModelNotLoaded` before there is a model, and `InvalidRequest` for numbers that it cannot compute with.
        """
        model = self._holder.require()
        started = time.perf_counter()
        try:
            answers = model.engine.predict(wines)
        except ValueError as error:
            if wines.max() <= _LARGEST:
                raise
            detail = f"The model cannot compute with numbers above {_LARGEST:.3g}."
            raise InvalidRequest("The request has 1 problem.", [Fault("", "too_large", detail)]) from error
        self._metrics.count_answers(answers.labels, answers.confidences, time.perf_counter() - started)
        return Predicted(model, wines, answers, _out_of_range(model, wines))


def _out_of_range(model: LoadedModel, wines: Matrix) -> dict[int, list[OutOfRange]]:
    found: dict[int, list[OutOfRange]] = {}
    if model.card is None:
        return found
    bounds = model.card.bounds
    for row, column in bounds.outside(wines):
        warning = OutOfRange(
            feature=FEATURE_NAMES[column],
            value=float(wines[row, column]),
            low=float(bounds.lows[column]),
            high=float(bounds.highs[column]),
        )
        found.setdefault(row, []).append(warning)
    return found
