"""Two engines agree if their labels are equal and their numbers differ by 1e-12 at most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.serving.engines import served
from wine_api.serving.engines.base import Answers, Engine
from wine_api.serving.engines.parity import agree
from wine_api.serving.wine import Matrix


class Changed:
    """Says what *engine* says, after *change*, for batches of at least *rows* rows."""

    name = "changed"

    def __init__(self, engine: Engine, change: Any, rows: int = 1) -> None:
        self.engine, self.change, self.rows = engine, change, rows
        self.asked = 0

    def predict(self, wines: Matrix) -> Answers:
        self.asked += len(wines)
        answers = self.engine.predict(wines)
        return self.change(answers) if len(wines) >= self.rows else answers


def unchanged(answers: Answers) -> Answers:
    return answers


def many_wines() -> Matrix:
    return np.tile(served.wines()[0], (6, 1))


@pytest.fixture(params=["forest", "regressor", "without probabilities"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "regressor":
        return served.reference(served.regressor("forest"))
    engine = served.reference(served.classifier("forest"))
    if request.param == "forest":
        return engine
    return Changed(engine, lambda answers: replace(answers, confidences=None, probabilities=None))


def test_an_engine_agrees_with_itself(engine: Engine) -> None:
    assert agree(engine, engine, many_wines(), seconds=9)


def test_another_label_is_a_difference(engine: Engine) -> None:
    changed = Changed(engine, lambda answers: replace(answers, labels=[99, *answers.labels[1:]]), rows=3)

    assert not agree(changed, engine, many_wines(), seconds=9)


@pytest.mark.parametrize(("by", "agrees"), [(1e-13, True), (2e-12, False), (np.nan, False), (np.inf, False)])
def test_probabilities_may_differ_by_what_rounding_does(by: float, agrees: bool) -> None:
    forest = served.reference(served.classifier("forest"))
    changed = Changed(forest, lambda answers: replace(answers, probabilities=answers.probabilities + by))

    assert agree(changed, forest, many_wines(), seconds=9) == agrees


@pytest.mark.parametrize("missing", ["probabilities", "confidences", "positions"])
def test_what_is_missing_is_a_difference(missing: str) -> None:
    forest = served.reference(served.classifier("forest"))
    changed = Changed(forest, lambda answers: replace(answers, **{missing: None}))

    assert not agree(changed, forest, many_wines(), seconds=9)


def test_large_batches_are_compared_though_time_is_up() -> None:
    forest = served.reference(served.classifier("forest"))
    changed = Changed(forest, lambda answers: replace(answers, labels=answers.labels[::-1]), rows=512)

    assert not agree(changed, forest, many_wines(), seconds=0)


def test_stops_when_time_is_up() -> None:
    forest = served.reference(served.classifier("forest"))
    counted = Changed(forest, unchanged)

    agree(counted, forest, many_wines(), seconds=0)

    assert counted.asked < len(many_wines())
