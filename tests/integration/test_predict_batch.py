"""POST /predict/batch: many wines, one model, all or nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.integration.problems import pointers, problem_of
from tests.models import WINE, WINE_BY_NAME, synthetic_wines

BAD_WINE = ["x", *WINE[1:]]


@pytest.mark.parametrize("rows", [1, 2, 100], ids=["one row", "two rows", "as many as allowed"])
def test_answers_like_scikit_learn_in_the_order_of_the_rows(client, models, rows):
    wines = synthetic_wines()[:rows]
    estimator = models.fives_and_sixes.estimator

    answer = client.post("/predict/batch", json={"features_list": wines.tolist()})

    assert answer.status_code == 200
    assert [row["prediction"] for row in answer.json["predictions"]] == estimator.predict(wines).tolist()
    confidences = [row["confidence"] for row in answer.json["predictions"]]
    assert confidences == estimator.predict_proba(wines).max(axis=1).tolist()


def test_says_how_the_answers_came_about(client):
    answer = client.post("/predict/batch", json={"features_list": [WINE, WINE, WINE]})

    assert {*answer.json} == {
        "predictions",
        "batch_size",
        "model_version",
        "processing_time_ms",
        "features_processed",
    }
    assert answer.json["batch_size"] == 3
    assert answer.json["features_processed"] == 11
    assert answer.json["model_version"] == "1.0"


@pytest.mark.parametrize(
    "body",
    [
        {"features_list": [WINE, WINE]},
        {"features_list": [WINE_BY_NAME, WINE]},
        {"wine_features_list": [WINE_BY_NAME, dict(reversed(WINE_BY_NAME.items()))]},
    ],
    ids=["arrays", "objects and arrays", "objects"],
)
def test_takes_rows_in_each_form(client, body):
    answer = client.post("/predict/batch", json=body)

    assert answer.status_code == 200
    assert answer.json["predictions"][0] == answer.json["predictions"][1]


def test_adds_the_probabilities_of_each_row_when_asked(client, models):
    answer = client.post("/predict/batch?include=probabilities", json={"features_list": [WINE, WINE]})

    expected = dict(zip(["5", "6"], models.fives_and_sixes.probabilities(WINE), strict=True))
    assert [row["probabilities"] for row in answer.json["predictions"]] == [expected, expected]


def test_only_the_rows_outside_the_training_range_carry_warnings(client):
    inside = {**WINE_BY_NAME, "citric_acid": 0.1}
    outside = {**inside, "alcohol": 50, "chlorides": 9}

    answer = client.post("/predict/batch", json={"wine_features_list": [inside, outside, inside]})

    first, second, third = answer.json["predictions"]
    assert "warnings" not in first
    assert [warning["feature"] for warning in second["warnings"]] == ["chlorides", "alcohol"]
    assert "warnings" not in third


def test_all_kinds_of_labels_come_in_batches(run, settings, folder, models):
    folder.upload(models.words.content)
    client = run(settings).test_client()
    rich = [*WINE[:10], 12.0]

    answer = client.post("/predict/batch", json={"features_list": [WINE, rich]})

    assert [row["prediction"] for row in answer.json["predictions"]] == ["poor", "superb"]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"": "missing"}),
        ({"features_list": [WINE], "wine_features_list": [WINE_BY_NAME]}, {"": "ambiguous"}),
        ({"features_list": []}, {"/features_list": "empty_batch"}),
        ({"wine_features_list": []}, {"/wine_features_list": "empty_batch"}),
        ({"features_list": None}, {"/features_list": "wrong_type"}),
        ({"features_list": WINE_BY_NAME}, {"/features_list": "wrong_type"}),
        ({"features_list": "wines"}, {"/features_list": "wrong_type"}),
        ({"features_list": WINE}, {f"/features_list/{place}": "wrong_type" for place in range(11)}),
        ({"features_list": [WINE, None]}, {"/features_list/1": "wrong_type"}),
        ({"features_list": [WINE, WINE[:10]]}, {"/features_list/1": "wrong_length"}),
        ({"features_list": [WINE, BAD_WINE]}, {"/features_list/1/0": "not_a_number"}),
        ({"features_list": [WINE, {"pH": 3}]}, None),
        ({"wine_features_list": [WINE]}, {"/wine_features_list/0": "wrong_type"}),
        ({"wine_features_list": [{**WINE_BY_NAME, "pH": None}]}, {"/wine_features_list/0/pH": "not_a_number"}),
        ({"features_list": [WINE], "colour": 1}, {"/colour": "unknown_field"}),
        ({"features_list": [WINE], "request_id": "1"}, {"/request_id": "unknown_field"}),
        ({"features": WINE}, {"/features": "unknown_field"}),
        ([WINE], {"": "wrong_type"}),
        (None, {"": "wrong_type"}),
    ],
    ids=[
        "neither form",
        "both forms",
        "empty",
        "empty objects",
        "null",
        "one object",
        "text",
        "one wine, not in a list",
        "null row",
        "short row",
        "bad value",
        "missing names",
        "array among objects",
        "null value",
        "unknown field",
        "request_id",
        "the field of one wine",
        "an array",
        "null body",
    ],
)
def test_one_bad_row_refuses_the_batch_with_a_pointer_to_it(client, body, faults):
    answer = client.post("/predict/batch", data=json.dumps(body), content_type="application/json")

    assert answer.status_code == 422
    assert problem_of(answer)["code"] == "validation_failed"
    assert faults is None or pointers(answer.json) == faults


def test_names_at_most_twenty_faults(client):
    answer = client.post("/predict/batch", json={"features_list": [BAD_WINE] * 50})

    assert answer.status_code == 422
    assert [fault["pointer"] for fault in problem_of(answer)["errors"]] == [
        f"/features_list/{row}/0" for row in range(20)
    ]


@pytest.mark.parametrize("form", ["features_list", "wine_features_list"])
@pytest.mark.parametrize("row", [WINE_BY_NAME, "not even a wine"], ids=["wines", "anything"])
def test_refuses_more_rows_than_the_limit(client, form, row):
    answer = client.post("/predict/batch", json={form: [row] * 101})

    assert answer.status_code == 413
    assert problem_of(answer)["code"] == "batch_too_large"
    assert "100" in answer.json["detail"]


def test_refuses_a_body_over_the_limit(client):
    answer = client.post("/predict/batch", data=b" " * (1024 * 1024 + 1), content_type="application/json")

    assert answer.status_code == 413
    assert problem_of(answer)["code"] == "body_too_large"


@pytest.mark.parametrize("query", ["include=nonsense", "include=probabilities&include=x"], ids=["word", "both"])
def test_refuses_to_include_what_it_does_not_know(client, query):
    answer = client.post(f"/predict/batch?{query}", json={"features_list": [WINE]})

    assert answer.status_code == 422
    assert problem_of(answer)["errors"][0]["code"] == "invalid_parameter"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b'{"features_list": [[NaN]]}', "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "invalid_json"),
        (b"[" * 1000, "application/json", 400, "invalid_json"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
    ],
    ids=["NaN", "nothing", "deep", "media type"],
)
def test_reads_bodies_as_strictly_as_for_one_wine(client, body, content_type, status, code):
    answer = client.post("/predict/batch", data=body, content_type=content_type)

    assert answer.status_code == status
    assert problem_of(answer)["code"] == code


def test_before_there_is_a_model(run, settings):
    answer = run(settings).test_client().post("/predict/batch", json={"features_list": [WINE]})

    assert answer.status_code == 503
    assert problem_of(answer)["code"] == "model_not_loaded"
    assert "Retry-After" in answer.headers


@pytest.mark.timeout(60)
def test_the_largest_batch_by_default_is_answered(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    client = run(settings).test_client()
    wines = np.tile(np.array(WINE), (10_000, 1)).tolist()

    answer = client.post("/predict/batch", json={"features_list": wines})

    assert answer.status_code == 200
    assert answer.json["batch_size"] == 10_000
