"""From a valid request to an answer, with a warning for what the model has never seen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.fakes import FakeEngine, loaded_model
from tests.models import WINE
from wine_api.errors import InvalidRequest, ModelNotLoaded
from wine_api.metrics import Metrics
from wine_api.serving.artifact import Bounds, TrainingRange
from wine_api.serving.holder import ModelHolder
from wine_api.serving.predictions import OutOfRange, Predictions
from wine_api.serving.wine import FEATURE_NAMES


@pytest.fixture
def holder():
    return ModelHolder()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def predictions(holder, metrics):
    return Predictions(holder, metrics)


class FailingEngine(FakeEngine):
    def predict(self, wines):
        raise RuntimeError("no cork")


def rows(*wines):
    return np.array(wines, dtype=float)


def card_with(**ranges):
    """Return the part of a card that predictions read: the ranges of training, all wide but those given."""
    wide = dict.fromkeys(FEATURE_NAMES, (0.0, 1000.0)) | ranges
    return SimpleNamespace(bounds=Bounds([TrainingRange(name, *wide[name]) for name in FEATURE_NAMES]))


def test_answers_with_the_model_in_use(holder, predictions):
    model = loaded_model()
    holder.swap(model)

    predicted = predictions.predict(rows(WINE, WINE))

    assert predicted.model is model
    assert predicted.answers.labels == [5, 5]
    assert predicted.answers.confidences.tolist() == [0.75, 0.75]


def test_needs_a_model(predictions):
    with pytest.raises(ModelNotLoaded):
        predictions.predict(rows(WINE))


class Choosy:
    """Refuses what it is asked, as scikit-learn refuses numbers beyond float32."""

    name = "choosy"

    def predict(self, wines):
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")


def test_numbers_that_the_model_cannot_compute_with_are_the_callers_affair(holder, predictions):
    holder.swap(loaded_model(engine=Choosy()))

    with pytest.raises(InvalidRequest) as refusal:
        predictions.predict(rows(WINE, [1e308] * 11))

    assert [fault.code for fault in refusal.value.faults] == ["too_large"]


def test_a_model_that_fails_for_other_numbers_is_not(holder, predictions):
    holder.swap(loaded_model(engine=Choosy()))

    with pytest.raises(ValueError, match="Input X"):
        predictions.predict(rows(WINE))


def test_counts_what_was_said(holder, predictions, metrics):
    holder.swap(loaded_model())

    predictions.predict(rows(WINE, WINE, WINE))

    assert metrics.prediction_rows._value.get() == 3
    assert metrics.predicted_label.labels("5")._value.get() == 3


def test_counts_nothing_when_the_model_fails(holder, predictions, metrics):
    holder.swap(loaded_model(engine=FailingEngine()))

    with pytest.raises(RuntimeError, match="no cork"):
        predictions.predict(rows(WINE))

    assert metrics.prediction_rows._value.get() == 0


def test_a_model_without_a_card_warns_of_nothing(holder, predictions):
    holder.swap(loaded_model(card=None))

    assert predictions.predict(rows([1e6] * 11)).warnings == {}


def test_values_at_the_ends_of_the_range_are_inside(holder, predictions):
    holder.swap(loaded_model(card=card_with(alcohol=(8.0, 9.4), pH=(3.51, 4.0))))

    assert predictions.predict(rows(WINE)).warnings == {}


def test_values_outside_the_range_are_named_row_by_row(holder, predictions):
    holder.swap(loaded_model(card=card_with(alcohol=(9.5, 14.9), pH=(2.7, 3.5))))
    inside = [*WINE[:8], 3.0, WINE[9], 10.0]

    warnings = predictions.predict(rows(inside, WINE, inside, WINE)).warnings

    expected = [OutOfRange("pH", 3.51, 2.7, 3.5), OutOfRange("alcohol", 9.4, 9.5, 14.9)]
    assert warnings == {1: expected, 3: expected}


def test_warnings_are_plain_numbers(holder, predictions):
    holder.swap(loaded_model(card=card_with(alcohol=(0.0, 1.0))))

    ((warning,),) = predictions.predict(rows(WINE)).warnings.values()

    assert [type(warning.value), type(warning.low), type(warning.high)] == [float, float, float]
