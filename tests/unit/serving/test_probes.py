"""A model is asked before anybody else asks it, and must answer as a model can, and as its card says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.serving import crafted
from wine_api.errors import ModelRejected
from wine_api.serving.artifact import ModelCard
from wine_api.serving.probes import check_golden, check_probes, probe_rows
from wine_api.serving.shape import Shape

SHAPE = Shape(columns=None, classes=(4, 5, 6), has_probabilities=True)
NUMBERS = Shape(columns=None, classes=None, has_probabilities=False)


class Answers:
    """A model that gives the same answers to whatever it is asked."""

    def __init__(self, label: Any = 5, probabilities: Any = (0.0, 1.0, 0.0)) -> None:
        self.label = label
        self.probabilities = probabilities

    def predict(self, rows: Any) -> Any:
        return np.array([self.label] * len(rows))

    def predict_proba(self, rows: Any) -> Any:
        return np.array([self.probabilities] * len(rows))


class Moody(Answers):
    """A model whose answers change."""

    def predict(self, rows: Any) -> Any:
        self.label = 9 - self.label
        return super().predict(rows)


class Broken(Answers):
    """A model that cannot answer."""

    def predict(self, rows: Any) -> Any:
        raise AttributeError("_fill_dtype")


def reason_of(model: Any, shape: Shape = SHAPE) -> str:
    with pytest.raises(ModelRejected) as refused:
        check_probes(model, shape)
    assert refused.value.gate == "probes"
    return refused.value.reason


class TestProbes:
    def test_honest_model_passes(self) -> None:
        check_probes(crafted.fitted("random forest"), SHAPE)

    def test_rows_are_wines_that_differ(self) -> None:
        rows = probe_rows()

        assert rows.shape == (26, 11)
        assert np.isfinite(rows).all()

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            pytest.param(Answers(probabilities=(0.0, 26.0, 0.0)), "not_probabilities", id="scikit-learn 1.3"),
            pytest.param(Answers(probabilities=(0.0, 0.5, 0.0)), "not_probabilities", id="sum below one"),
            pytest.param(Answers(probabilities=(-0.5, 1.0, 0.5)), "not_probabilities", id="negative"),
            pytest.param(Answers(probabilities=(np.nan, 1.0, 0.0)), "not_finite", id="not a number"),
            pytest.param(Answers(probabilities=(0.0, 1.0)), "wrong_shape", id="too few"),
            pytest.param(Answers(label=7), "unknown_label", id="label of no class"),
            pytest.param(Answers(label=(5, 5)), "wrong_shape", id="two labels"),
            pytest.param(Moody(label=4), "not_deterministic", id="changing"),
            pytest.param(Broken(), "predict_failed", id="raising"),
        ],
    )
    def test_answers_that_no_model_gives_are_refused(self, model: Any, reason: str) -> None:
        assert reason_of(model) == reason

    @pytest.mark.parametrize(
        ("label", "reason"),
        [
            pytest.param(np.inf, "not_finite", id="infinite"),
            pytest.param("good", "not_finite", id="word"),
            pytest.param((1.0,), "wrong_shape", id="column"),
        ],
    )
    def test_numbers_that_no_regressor_gives_are_refused(self, label: Any, reason: str) -> None:
        assert reason_of(Answers(label), NUMBERS) == reason

    def test_columns_are_arranged_for_the_model(self) -> None:
        seen = []
        model = Answers()
        model.predict = lambda rows: seen.append(rows) or np.array([5] * len(rows))  # type: ignore[method-assign]

        check_probes(model, Shape(columns=(10, *range(10)), classes=(4, 5, 6), has_probabilities=True))

        assert np.array_equal(seen[0][:, 0], probe_rows()[:, 10])


def card(classes: Any = (4, 5, 6), **golden: Any) -> ModelCard:
    """Return a card whose golden rows are those that `Answers` gives."""
    from wine_api.serving.artifact import Bounds, GoldenRows

    rows = {"inputs": [[5.0] * 11] * 2, "predictions": [5, 5], "probabilities": [[0.0, 1.0, 0.0]] * 2, **golden}
    return ModelCard(
        version="1",
        sha256="",
        size=0,
        libraries={},
        ranges=(),
        bounds=Bounds(()),
        classes=classes,
        metrics={},
        golden=GoldenRows(**rows),
        document={},
    )


class TestGolden:
    def test_exact_answers_pass(self) -> None:
        check_golden(Answers(), SHAPE, card())

    def test_rounding_in_the_last_place_passes(self) -> None:
        check_golden(Answers(), SHAPE, card(probabilities=[[1e-13, 1 - 1e-13, 0.0]] * 2))

    def test_numbers_of_a_regressor_are_compared(self) -> None:
        check_golden(Answers(5.25), NUMBERS, card(None, predictions=[5.25, 5.25], probabilities=None))

    @pytest.mark.parametrize(
        ("model", "shape", "golden", "reason"),
        [
            pytest.param(
                Answers(), SHAPE, card(probabilities=[[1e-9, 1 - 1e-9, 0.0]] * 2), "golden_probabilities_differ",
                id="a little off",
            ),
            pytest.param(Answers(), SHAPE, card(predictions=[5, 4]), "golden_labels_differ", id="another label"),
            pytest.param(Answers(), SHAPE, card(predictions=[5]), "golden_malformed", id="too few labels"),
            pytest.param(
                Answers(), SHAPE, card(probabilities=[[1.0, 0.0]] * 2), "golden_probabilities_differ", id="too narrow"
            ),
            pytest.param(
                Answers(), SHAPE, card(probabilities=[[1.0], [0.0, 1.0]]), "golden_probabilities_differ", id="ragged"
            ),
            pytest.param(Answers(), SHAPE, card((4, 5, 7)), "classes_differ", id="other classes"),
            pytest.param(
                Answers(5.25), NUMBERS, card(None, predictions=[5.25, 5.26], probabilities=None),
                "golden_labels_differ", id="another number",
            ),
            pytest.param(Answers(), NUMBERS, card(None), "golden_probabilities_differ", id="no probabilities"),
            pytest.param(Broken(), SHAPE, card(), "predict_failed", id="raising"),
        ],
    )  # fmt: skip
    def test_anything_else_is_refused(self, model: Any, shape: Shape, golden: ModelCard, reason: str) -> None:
        with pytest.raises(ModelRejected) as refused:
            check_golden(model, shape, golden)

        assert (refused.value.gate, refused.value.reason) == ("golden", reason)
