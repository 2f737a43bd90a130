"""Proves that an engine answers as scikit-learn does, before it answers anybody else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from wine_api.serving.engines.base import Answers, Engine, Floats
from wine_api.serving.wine import Matrix

TOLERANCE = 1e-12
# An engine may compute one wine, a few, and many in different ways.
_SLICES = (1, 1, 1, 2, 3, 4, 20, 60, 160, 600, 600, 600, 600)
_LEAST = 10


def agree(engine: Engine, reference: Engine, wines: Matrix, *, seconds: float) -> bool:
    """Whether *engine* says the same as *reference* of *wines*: equal labels, and numbers within 1e-12.

    Takes about *seconds*: it then leaves out the rest, but never one of the ways to compute.
    """
    deadline = time.perf_counter() + seconds
    for number, rows in enumerate(_slices(wines)):
        if number >= _LEAST and time.perf_counter() > deadline:
            return True
        if not _same(engine.predict(rows), reference.predict(rows)):
            return False
    return True


def _slices(wines: Matrix) -> Iterator[Matrix]:
    start = 0
    for size in _SLICES:
        if start >= len(wines):
            return
        yield wines[start : start + size]
        start += size


def _same(answers: Answers, reference: Answers) -> bool:
    if reference.positions is None:
        return _near(np.asarray(answers.labels, dtype=np.float64), np.asarray(reference.labels, dtype=np.float64))
    return (
        answers.labels == reference.labels
        and np.array_equal(answers.positions, reference.positions)  # type: ignore[arg-type]  # None differs
        and _near(answers.probabilities, reference.probabilities)
        and _near(answers.confidences, reference.confidences)
    )


def _near(values: Floats | None, reference: Floats | None) -> bool:
    if values is None or reference is None:
        return values is reference
    if values.shape != reference.shape:
        return False
    # A comparison with what is not a number is false.
    return bool(np.all(np.abs(values - reference) <= TOLERANCE * np.maximum(1.0, np.abs(reference))))
