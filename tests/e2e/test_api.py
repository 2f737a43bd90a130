"""The service as its callers see it. Knows only its URL: `--url`, `WINE_API_URL`, or one that the tests start."""

from __future__ import annotations

import os
import re

import pytest

from tests.server import Answer, Caller

WINE = [7.4, 0.7, 0.0, 1.9, 0.076, 11.0, 34.0, 0.9978, 3.51, 0.56, 9.4]
NAMES = [
    "fixed_acidity",
    "volatile_acidity",
    "citric_acid",
    "residual_sugar",
    "chlorides",
    "free_sulfur_dioxide",
    "total_sulfur_dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
]
WINE_BY_NAME = dict(zip(NAMES, WINE, strict=True))
ACCOUNTS = {"model_version", "processing_time_ms", "features_processed"}


@pytest.fixture(scope="module")
def api(url) -> Caller:
    return Caller(url)


@pytest.fixture
def metrics(api, request) -> Answer:
    """What Prometheus gets; an ingress keeps it inside, so a service that the tests were pointed to may not show it."""
    answer = api.get("/metrics")
    pointed_to = request.config.getoption("--url") or os.environ.get("WINE_API_URL")
    if answer.status == 404 and pointed_to:
        pytest.skip("The metrics are not to be had from here.")
    return answer


# What the first version of the service was asked


def test_predicts_a_wine_by_position(api):
    answer = api.post("/predict", {"features": WINE})

    assert answer.status == 200
    assert {"prediction", "confidence", *ACCOUNTS} <= set(answer.json)
    assert answer.json["confidence"] is None or 0 <= answer.json["confidence"] <= 1
    assert answer.json["features_processed"] == 11


def test_predicts_the_same_wine_by_name(api):
    by_position = api.post("/predict", {"features": WINE}).json

    by_name = api.post("/predict", {"wine_features": WINE_BY_NAME})

    assert by_name.status == 200
    assert by_name.json["prediction"] == by_position["prediction"]
    assert by_name.json["confidence"] == by_position["confidence"]


def test_predicts_a_batch(api):
    alone = api.post("/predict", {"features": WINE}).json

    answer = api.post("/predict/batch", {"features_list": [WINE, WINE]})

    assert answer.status == 200
    assert answer.json["batch_size"] == 2
    assert set(answer.json) >= ACCOUNTS
    assert [row["prediction"] for row in answer.json["predictions"]] == [alone["prediction"]] * 2


def test_predicts_a_batch_by_name(api):
    answer = api.post("/predict/batch", {"wine_features_list": [WINE_BY_NAME]})

    assert answer.status == 200
    assert answer.json["batch_size"] == 1


def test_is_healthy(api):
    answer = api.get("/health")

    assert answer.status == 200
    assert answer.json["status"] in ("healthy", "degraded")
    assert answer.json["model"]["loaded"] is True


def test_refuses_a_wine_that_is_not_whole(api):
    answer = api.post("/predict", {"features": WINE[:5]})

    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] == "validation_failed"
    assert answer.json["errors"][0]["pointer"] == "/features"


# Each endpoint


def test_the_start_page_leads_everywhere(api):
    answer = api.get("/")

    assert answer.status == 200
    assert {"predict", "predict_batch", "model", "health", "metrics", "docs", "openapi"} <= set(answer.json["links"])


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/model", "/openapi.json"])
def test_answers_in_json(api, path):
    answer = api.get(path)

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert isinstance(answer.json, dict)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_shows_its_documentation(api, path):
    answer = api.get(path)

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")


def test_names_the_model_that_answers(api):
    model = api.get("/model").json

    assert model["version"] == api.post("/predict", {"features": WINE}).json["model_version"]
    assert [feature["name"] for feature in model["features"]] == NAMES
    assert re.fullmatch("[0-9a-f]{64}", model["digest"])


def test_every_path_of_the_document_is_there(api):
    paths = api.get("/openapi.json").json["paths"]

    assert {"/", "/predict", "/predict/batch", "/model", "/model/reload", "/health", "/metrics"} <= set(paths)


def test_counts_what_it_answers(metrics):
    assert metrics.status == 200
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert 'wine_predictions_total{endpoint="predict",outcome="success"}' in metrics.text


def test_adds_probabilities_when_asked(api):
    answer = api.post("/predict?include=probabilities", {"features": WINE})

    assert answer.status == 200
    assert answer.json["confidence"] is None or answer.json["confidence"] in answer.json["probabilities"].values()


def test_keeps_the_callers_request_id(api):
    answer = api.get("/health/live", {"X-Request-ID": "end-to-end"})

    assert answer.headers["X-Request-ID"] == "end-to-end"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/predict", None, 405),
        ("POST", "/predict", b"{", 400),
        ("POST", "/predict", b"{}", 422),
    ],
    ids=["unknown address", "wrong method", "broken JSON", "nothing asked"],
)
def test_says_what_is_wrong_in_one_shape(api, method, path, body, status):
    answer = api.ask(method, path, body, {"Content-Type": "application/json"})

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(answer.json)
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]


def test_refuses_another_media_type(api):
    answer = api.ask("POST", "/predict", b"features", {"Content-Type": "text/plain"})

    assert answer.status == 415
