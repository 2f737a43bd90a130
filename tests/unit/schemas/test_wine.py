"""A wine on the wire: spellings, order and numbers, and a pointer to whatever is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import WINE, WINE_BY_NAME
from wine_api.errors import InvalidRequest
from wine_api.schemas.predictions import PredictRequest
from wine_api.serving.wine import FEATURE_NAMES

SCHEMA = PredictRequest()


def load(wine):
    """Return the row that *wine*, an array or an object, is loaded as."""
    return SCHEMA.load({"features": wine})[0].tolist()


def faults_of(wine):
    """Return the code of each fault of *wine* by its pointer within the wine."""
    with pytest.raises(InvalidRequest) as refusal:
        load(wine)
    return {fault.pointer.removeprefix("/features"): fault.code for fault in refusal.value.faults}


def details_of(wine):
    with pytest.raises(InvalidRequest) as refusal:
        load(wine)
    return " ".join(fault.detail for fault in refusal.value.faults)


def test_an_array_is_in_the_published_order():
    assert load(WINE) == WINE


@pytest.mark.parametrize(
    "order",
    [sorted(FEATURE_NAMES), [*reversed(FEATURE_NAMES)], sorted(FEATURE_NAMES, key=len)],
    ids=["alphabetical", "reversed", "by length"],
)
def test_names_may_come_in_any_order(order):
    assert load({name: WINE_BY_NAME[name] for name in order}) == WINE


@pytest.mark.parametrize("spelling", ["pH", "ph", "PH", "Ph", "p_h", "p.H"])
def test_acidity_in_any_spelling(spelling):
    wine = {(spelling if name == "pH" else name): value for name, value in WINE_BY_NAME.items()}

    assert load(wine) == WINE


@pytest.mark.parametrize(
    "spelling", ["fixed acidity", "Fixed_Acidity", "fixed.acidity", "fixedAcidity", "FIXED-ACIDITY", "fixedacidity"]
)
def test_names_of_two_words_in_any_spelling(spelling):
    wine = {(spelling if name == "fixed_acidity" else name): value for name, value in WINE_BY_NAME.items()}

    assert load(wine) == WINE


@pytest.mark.parametrize("spelling", ["freeSulphurDioxide", "free sulphur dioxide", "FREE_SULFUR_DIOXIDE"])
def test_names_in_either_english(spelling):
    wine = {(spelling if name == "free_sulfur_dioxide" else name): value for name, value in WINE_BY_NAME.items()}

    assert load(wine) == WINE


def test_whole_numbers_are_numbers():
    assert load([1] * 11) == [1.0] * 11


def test_numbers_keep_every_bit():
    number = float(np.nextafter(7.4, 8))

    assert load([number, *WINE[1:]])[0] == number


@pytest.mark.parametrize("length", [0, 1, 10, 12, 1000])
def test_an_array_has_eleven_numbers(length):
    assert faults_of([1.0] * length) == {"": "wrong_length"}
    assert str(length) in details_of([1.0] * length)


@pytest.mark.parametrize(
    ("value", "says"),
    [("7.4", "text"), (True, "boolean"), (None, "null"), ([7.4], "array"), ({}, "object")],
    ids=["text", "boolean", "null", "array", "object"],
)
def test_only_numbers_are_numbers(value, says):
    assert faults_of([value, *WINE[1:]]) == {"/0": "not_a_number"}
    assert says in details_of([value, *WINE[1:]])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 10**400], ids=str)
def test_numbers_are_finite(value):
    assert faults_of([value, *WINE[1:]]) == {"/0": "not_finite"}


@pytest.mark.parametrize("place", range(11))
def test_no_measurement_is_negative(place):
    wine = [*WINE]
    wine[place] = -0.001

    assert faults_of(wine) == {f"/{place}": "too_small"}


@pytest.mark.parametrize(("name", "limit"), [("pH", 14), ("alcohol", 100)])
def test_some_measurements_have_a_limit(name, limit):
    assert load({**WINE_BY_NAME, name: limit})
    assert faults_of({**WINE_BY_NAME, name: limit + 0.001}) == {f"/{name}": "too_large"}
    assert str(limit) in details_of({**WINE_BY_NAME, name: limit + 0.001})


def test_faults_are_told_in_the_callers_spelling():
    wine = {(name.upper()): value for name, value in WINE_BY_NAME.items()}

    assert faults_of({**wine, "ALCOHOL": "much"}) == {"/ALCOHOL": "not_a_number"}


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_a_missing_name_is_named(name):
    wine = {other: value for other, value in WINE_BY_NAME.items() if other != name}

    assert faults_of(wine) == {f"/{name}": "missing"}


def test_a_doubled_name_is_named_where_it_comes_again():
    assert faults_of({**WINE_BY_NAME, "Fixed Acidity": 7.4}) == {"/Fixed Acidity": "duplicate_feature"}


@pytest.mark.parametrize(
    ("spelling", "meant"),
    [
        ("alcohool", "alcohol"),
        ("chloride", "chlorides"),
        ("fixed_acid", "fixed_acidity"),
        ("residual_sugars", "residual_sugar"),
        ("PHH", "pH"),
        ("Density2", "density"),
    ],
)
def test_an_unknown_name_comes_with_what_may_have_been_meant(spelling, meant):
    assert faults_of({**WINE_BY_NAME, spelling: 1}) == {f"/{spelling}": "unknown_feature"}
    assert f"did you mean {meant}?" in details_of({**WINE_BY_NAME, spelling: 1})


def test_nothing_is_suggested_for_what_is_like_no_feature():
    assert "did you mean" not in details_of({**WINE_BY_NAME, "xyz": 1})


def test_all_that_is_wrong_is_said_at_once():
    wine = {**WINE_BY_NAME, "colour": 1, "ALCOHOL": 2, "pH": "x"}
    del wine["density"]

    assert faults_of(wine) == {
        "/colour": "unknown_feature",
        "/ALCOHOL": "duplicate_feature",
        "/pH": "not_a_number",
        "/density": "missing",
    }


@pytest.mark.parametrize("wine", [None, "x", 7, 7.5, True], ids=str)
def test_a_wine_is_an_array_or_an_object(wine):
    assert faults_of(wine) == {"": "wrong_type"}
