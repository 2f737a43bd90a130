"""Asks a model before anybody else does, and compares what it says with what a model can say, and with its card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wine_api.errors import ModelRejected
from wine_api.serving.artifact import ModelCard
from wine_api.serving.shape import Shape, labels_of
from wine_api.serving.wine import FEATURES, Label, Matrix

PROBE_GATE = "probes"
GOLDEN_GATE = "golden"
SUM_TOLERANCE = 1e-6
GOLDEN_TOLERANCE = 1e-12
# 100 probabilities of 0.01 add up to a little more than one.
_RANGE_TOLERANCE = 1e-9

Floats = npt.NDArray[np.float64]

# A light white and a heavy red: between them lie most wines.
_LIGHT = (4.5, 0.1, 0.0, 0.8, 0.015, 3.0, 15.0, 0.988, 2.8, 0.25, 8.5)
_HEAVY = (13.0, 1.1, 0.8, 20.0, 0.3, 80.0, 250.0, 1.003, 3.9, 1.5, 14.0)


def probe_rows() -> Matrix:
    """Return wines to try a model on: a usual one, two extremes, and each measurement of them taken to the other."""
    example = [feature.example for feature in FEATURES]
    rows = [example, list(_LIGHT), list(_HEAVY), list(np.mean([_LIGHT, _HEAVY], axis=0))]
    for index in range(len(FEATURES)):
        rows += [[*example[:index], edge[index], *example[index + 1 :]] for edge in (_LIGHT, _HEAVY)]
    return np.asarray(rows, dtype=np.float64)


def check_probes(estimator: Any, shape: Shape) -> None:
    """Raise `ModelRejected` unless *estimator* gives finite answers of its *shape*, the same ones each time."""
    rows = _arranged(probe_rows(), shape)
    predicted, probabilities = _answers(estimator, rows, shape)
    _check_predictions(predicted, len(rows), shape)
    if probabilities is not None:
        _check_probabilities(probabilities, (len(rows), len(shape.classes or ())))
    again, probabilities_again = _answers(estimator, rows, shape)
    if not (np.array_equal(predicted, again) and _same(probabilities, probabilities_again)):
        raise _odd("not_deterministic", "The model gives different answers for the same wine.")


def check_golden(estimator: Any, shape: Shape, card: ModelCard) -> None:
    """Raise `ModelRejected` unless *estimator* gives exactly the answers of its *card*."""
    golden = card.golden
    if _different(golden.predictions, golden.inputs) or _different(golden.probabilities, golden.inputs):
        raise _wrong("golden_malformed", "The card does not have one answer for each of its golden rows.")
    if card.classes is not None and card.classes != shape.classes:
        raise _wrong("classes_differ", "The model does not have the classes that its card says.")
    if (golden.probabilities is not None) and not shape.has_probabilities:
        raise _wrong("golden_probabilities_differ", "The card has probabilities, the model has none.")
    rows = _arranged(np.asarray(golden.inputs, dtype=np.float64), shape)
    predicted, probabilities = _answers(estimator, rows, shape, gate=GOLDEN_GATE)
    if not _agree(predicted, golden.predictions, shape):
        raise _wrong("golden_labels_differ", "The model does not give the answers of its golden rows.")
    if golden.probabilities is not None and not _close(probabilities, golden.probabilities):
        raise _wrong("golden_probabilities_differ", "The model does not give the probabilities of its golden rows.")


def _odd(reason: str, detail: str) -> ModelRejected:
    return ModelRejected(PROBE_GATE, reason, detail)


def _wrong(reason: str, detail: str) -> ModelRejected:
    return ModelRejected(GOLDEN_GATE, reason, detail)


def _arranged(rows: Matrix, shape: Shape) -> Matrix:
    return rows if shape.columns is None else np.ascontiguousarray(rows[:, list(shape.columns)])


def _answers(estimator: Any, rows: Matrix, shape: Shape, gate: str = PROBE_GATE) -> tuple[Any, Any]:
    try:
        return estimator.predict(rows), estimator.predict_proba(rows) if shape.has_probabilities else None
    except MemoryError:
        raise
    # Whatever a model raises, it raises for a wine as any caller could send it.
    except Exception as error:
        raise ModelRejected(gate, "predict_failed", f"The model cannot predict: {type(error).__name__}.") from error


def _check_predictions(predicted: Any, count: int, shape: Shape) -> None:
    if not isinstance(predicted, np.ndarray) or predicted.shape != (count,):
        raise _odd("wrong_shape", "The model does not give one answer a wine.")
    if shape.classes is None:
        if predicted.dtype.kind not in "iuf" or not np.isfinite(predicted).all():
            raise _odd("not_finite", "The model predicts values that are not finite numbers.")
    elif not set(labels_of(predicted)) <= set(shape.classes):
        raise _odd("unknown_label", "The model predicts a label that is not among its classes.")


def _check_probabilities(probabilities: Any, expected: tuple[int, int]) -> None:
    if not isinstance(probabilities, np.ndarray) or probabilities.shape != expected:
        raise _odd("wrong_shape", "The model does not give one probability a class.")
    if probabilities.dtype.kind != "f" or not np.isfinite(probabilities).all():
        raise _odd("not_finite", "The model gives probabilities that are not finite numbers.")
    if probabilities.min() < -_RANGE_TOLERANCE or probabilities.max() > 1 + _RANGE_TOLERANCE:
        raise _odd("not_probabilities", f"The model gives a probability of {probabilities.max():.3g}.")
    sums = probabilities.sum(axis=1)
    if np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise _odd("not_probabilities", f"The model's probabilities add up to {sums.max():.3g}, not to 1.")


def _same(one: Floats | None, other: Floats | None) -> bool:
    return one is other is None or (one is not None and other is not None and np.array_equal(one, other))


def _different(answers: Sequence[Any] | None, inputs: Sequence[Any]) -> bool:
    return answers is not None and len(answers) != len(inputs)


def _agree(predicted: Any, golden: list[Label], shape: Shape) -> bool:
    if shape.classes is None:
        return _close(predicted, golden)
    return labels_of(predicted) == tuple(golden)


def _close(values: Any, golden: Any) -> bool:
    try:
        expected = np.asarray(golden, dtype=np.float64)
    except ValueError:
        return False
    if np.shape(values) != expected.shape:
        return False
    return bool(np.all(np.abs(values - expected) <= GOLDEN_TOLERANCE * np.maximum(1, np.abs(expected))))
