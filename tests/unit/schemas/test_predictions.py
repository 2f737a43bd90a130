"""Requests for predictions: exactly one of two forms, and no more than twenty complaints."""

from __future__ import annotations

import pytest

from tests.models import WINE, WINE_BY_NAME
from wine_api.errors import InvalidRequest
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest

ONE, MANY = PredictRequest(), PredictBatchRequest()


def faults_of(schema, body):
    with pytest.raises(InvalidRequest) as refusal:
        schema.load(body)
    return {fault.pointer: fault.code for fault in refusal.value.faults}


@pytest.mark.parametrize(
    "body",
    [{"features": WINE}, {"features": WINE_BY_NAME}, {"wine_features": WINE_BY_NAME}],
    ids=["array", "object", "object by name"],
)
def test_one_wine_is_a_matrix_of_one_row(body):
    matrix = ONE.load(body)

    assert matrix.shape == (1, 11)
    assert matrix.dtype == float
    assert matrix[0].tolist() == WINE


@pytest.mark.parametrize(
    "body",
    [{"features_list": [WINE, WINE_BY_NAME]}, {"wine_features_list": [WINE_BY_NAME, WINE_BY_NAME]}],
    ids=["arrays and objects", "objects"],
)
def test_many_wines_are_a_matrix_in_their_order(body):
    matrix = MANY.load(body)

    assert matrix.shape == (2, 11)
    assert matrix.tolist() == [WINE, WINE]


@pytest.mark.parametrize(
    ("schema", "body"),
    [(ONE, {}), (MANY, {}), (ONE, {"features_list": [WINE]}), (MANY, {"features": WINE})],
    ids=["one", "many", "many for one", "one for many"],
)
def test_one_of_the_forms_is_needed(schema, body):
    assert set(faults_of(schema, body).values()) <= {"missing", "unknown_field"}


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (ONE, {"features": WINE, "wine_features": WINE_BY_NAME}),
        (MANY, {"features_list": [WINE], "wine_features_list": [WINE_BY_NAME]}),
    ],
    ids=["one", "many"],
)
def test_both_forms_are_one_too_many(schema, body):
    assert faults_of(schema, body) == {"": "ambiguous"}


def test_the_faults_of_both_forms_are_named_before_they_are_called_ambiguous():
    assert faults_of(ONE, {"features": [], "wine_features": []}) == {
        "/features": "wrong_length",
        "/wine_features": "wrong_type",
    }


@pytest.mark.parametrize("schema", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize("body", [None, [], "x", 1, 1.5, True], ids=repr)
def test_a_body_is_an_object(schema, body):
    assert faults_of(schema, body) == {"": "wrong_type"}


@pytest.mark.parametrize("form", ["features_list", "wine_features_list"])
def test_a_batch_of_nothing_is_refused(form):
    assert faults_of(MANY, {form: []}) == {f"/{form}": "empty_batch"}


@pytest.mark.parametrize("form", ["features_list", "wine_features_list"])
@pytest.mark.parametrize("rows", [None, "x", {}, 1, 1.5, True], ids=repr)
def test_a_batch_is_an_array(form, rows):
    assert faults_of(MANY, {form: rows}) == {f"/{form}": "wrong_type"}


@pytest.mark.parametrize("row", [None, "x", 1, 1.5, True], ids=repr)
@pytest.mark.parametrize("form", ["features_list", "wine_features_list"])
def test_a_row_is_a_wine(form, row):
    assert faults_of(MANY, {form: [row]}) == {f"/{form}/0": "wrong_type"}


def test_faults_point_into_the_row():
    body = {"features_list": [WINE, [*WINE[:10], "x"], {**WINE_BY_NAME, "pH": 15}]}

    assert faults_of(MANY, body) == {"/features_list/1/10": "not_a_number", "/features_list/2/pH": "too_large"}


def test_at_most_twenty_faults_are_named_but_all_are_counted():
    with pytest.raises(InvalidRequest) as refusal:
        MANY.load({"features_list": [["x"] * 11] * 3})

    assert len(refusal.value.faults) == 20
    assert "33" in refusal.value.detail


def test_one_fault_is_one_problem():
    with pytest.raises(InvalidRequest, match=r"1 problem\."):
        ONE.load({})


@pytest.mark.parametrize(
    ("name", "pointer"),
    [("colour", "/colour"), ("a/b", "/a~1b"), ("a~b", "/a~0b"), ("~1", "/~01"), ("", "/"), ("é", "/é")],
)
def test_unknown_fields_are_named_by_their_json_pointer(name, pointer):
    assert faults_of(ONE, {"features": WINE, name: 1}) == {pointer: "unknown_field"}


def test_a_field_with_a_name_of_any_length_is_named_in_short():
    (pointer,) = faults_of(ONE, {"features": WINE, "x" * 100_000: 1})

    assert len(pointer) < 100


def test_the_request_id_has_gone_to_a_header():
    with pytest.raises(InvalidRequest) as refusal:
        ONE.load({"features": WINE, "request_id": "x"})

    (fault,) = refusal.value.faults
    assert (fault.pointer, fault.code) == ("/request_id", "unknown_field")
    assert "X-Request-ID" in fault.detail
