"""The OpenAPI document: complete, valid, and true."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.contract import Contract
from tests.models import WINE, WINE_BY_NAME
from wine_api import errors
from wine_api.api import docs
from wine_api.errors import WineError
from wine_api.serving.wine import FEATURE_NAMES, FEATURES

ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WineError)]


@pytest.fixture
def contract(client):
    return Contract.of(client)


def examples_of(contract, operation):
    """Return the examples of the requests of *operation* by name."""
    content = operation.get("requestBody", {}).get("content", {})
    return {
        name: contract.resolve(example)["value"]
        for media_type in content.values()
        for name, example in media_type["examples"].items()
    }


# The document itself


def test_is_valid_openapi_3_1(client):
    document = client.get("/openapi.json").json

    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_has_every_route_and_no_other(contract, shared_app):
    routes = {
        (method, rule.rule)
        for rule in shared_app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint != "flasgger.static"
    }

    assert set(contract.operations()) == routes


def test_names_and_sorts_every_operation(contract):
    operations = contract.operations().values()
    tags = {tag["name"] for tag in contract.document["tags"]}

    assert all(operation["summary"] and set(operation["tags"]) <= tags for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_tells_the_good_and_the_bad_end_of_every_operation(contract):
    for operation in contract.operations().values():
        assert {"200", "500", "default"} <= set(operation["responses"])


def test_tells_what_can_be_wrong_with_a_body(contract):
    with_body = [operation for operation in contract.operations().values() if "requestBody" in operation]

    assert len(with_body) >= 3
    assert all({"400", "413", "415", "422"} <= set(operation["responses"]) for operation in with_body)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_tells_of_every_error_somewhere(contract, error):
    told = [
        response["content"]["application/problem+json"]["examples"]
        for operation in contract.operations().values()
        for status, response in operation["responses"].items()
        if status == str(error.status) and "application/problem+json" in response["content"]
    ]

    assert any(error.code in codes for codes in told)


def test_says_that_every_answer_carries_the_request_id(contract):
    for operation in contract.operations().values():
        for response in operation["responses"].values():
            assert "X-Request-ID" in response["headers"]


def test_says_when_to_try_again(contract):
    without_model = contract.operations()["POST", "/predict"]["responses"]["503"]

    assert "Retry-After" in without_model["headers"]


def test_describes_every_schema(contract):
    assert [name for name, schema in contract.schemas.items() if not schema.get("description")] == []


def test_does_not_forbid_answers_to_grow(client):
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}

    assert closed == {"WineFeatures", "PredictRequest", "PredictBatchRequest", "ReloadRequest"}


# Wines


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_tells_unit_and_range_of_each_feature_in_both_forms(contract, feature):
    by_name = contract.schemas["WineFeatures"]["properties"][feature.name]
    by_position = contract.schemas["WineNumbers"]["prefixItems"][FEATURE_NAMES.index(feature.name)]

    assert by_name["minimum"] == feature.minimum
    assert by_name.get("maximum") == feature.maximum
    assert by_name["x-unit"] == feature.unit
    assert feature.description in by_name["description"]
    assert by_position == {"title": feature.name, **by_name}


def test_explains_the_spellings_of_names(contract):
    words = contract.schemas["WineFeatures"]["description"]

    assert all(spelling in words for spelling in ("`fixed acidity`", "`freeSulphurDioxide`"))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"features": WINE}, id="by position"),
        pytest.param({"features": WINE_BY_NAME}, id="by name, under features"),
        pytest.param({"wine_features": WINE_BY_NAME}, id="by name"),
        pytest.param({}, id="neither form"),
        pytest.param({"features": WINE, "wine_features": WINE_BY_NAME}, id="both forms"),
        pytest.param({"wine_features": WINE}, id="an array where only an object is taken"),
        pytest.param({"features": WINE[:10]}, id="ten numbers"),
        pytest.param({"features": [*WINE, 1.0]}, id="twelve numbers"),
        pytest.param({"features": ["7.4", *WINE[1:]]}, id="text"),
        pytest.param({"features": [None, *WINE[1:]]}, id="null"),
        pytest.param({"features": [True, *WINE[1:]]}, id="a boolean"),
        pytest.param({"features": [-0.1, *WINE[1:]]}, id="a negative number"),
        pytest.param({"features": [*WINE[:8], 14.5, *WINE[9:]]}, id="a pH over 14"),
        pytest.param({"wine_features": WINE_BY_NAME | {"colour": 1}}, id="an unknown name"),
        pytest.param({"wine_features": {"pH": 3.5}}, id="missing names"),
        pytest.param({"features": WINE, "request_id": "x"}, id="an unknown field"),
        pytest.param({"features": None}, id="null instead of a wine"),
        pytest.param([], id="not an object"),
    ],
)
def test_allows_of_a_wine_what_the_service_takes(client, contract, body):
    taken = client.post("/predict", json=body).status_code == 200

    assert contract.allows("PredictRequest", body) is taken


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"features_list": [WINE, WINE_BY_NAME]}, id="mixed rows"),
        pytest.param({"wine_features_list": [WINE_BY_NAME]}, id="by name"),
        pytest.param({"features_list": [WINE] * 100}, id="as many as may be"),
        pytest.param({"features_list": []}, id="no rows"),
        pytest.param({"wine_features_list": [WINE]}, id="an array where only objects are taken"),
        pytest.param({"features_list": [WINE], "wine_features_list": [WINE_BY_NAME]}, id="both forms"),
        pytest.param({"features_list": [WINE, WINE[:10]]}, id="a short row"),
        pytest.param({"features_list": WINE}, id="one wine"),
    ],
)
def test_allows_of_a_batch_what_the_service_takes(client, contract, body):
    taken = client.post("/predict/batch", json=body).status_code == 200

    assert contract.allows("PredictBatchRequest", body) is taken


# Examples


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_examples_of_requests_work_as_they_stand(client, contract, path):
    examples = examples_of(contract, contract.operations()["POST", path])

    assert len(examples) == 2
    for body in examples.values():
        response = client.post(path, json=body)
        assert response.status_code == 200
        contract.check(response)


def test_examples_of_reloads_work_where_there_is_such_a_version(app_with_named_version):
    client = app_with_named_version.test_client()
    contract = Contract.of(client)

    for body in examples_of(contract, contract.operations()["POST", "/model/reload"]).values():
        response = client.post("/model/reload", json=body)
        assert response.status_code == 200
        contract.check(response)


@pytest.fixture
def app_with_named_version(run, settings, shared_cache, folder, models):
    folder.publish("1.0.0", models.fives_and_sixes)
    folder.promote("1.0.0")
    return run(replace(settings, model_cache_dir=shared_cache))


def test_every_example_is_as_its_schema_says(contract):
    for operation in contract.operations().values():
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for content in part.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    assert contract.faults(content["schema"], contract.resolve(example)["value"]) == []


def test_the_command_in_the_description_works(client, contract):
    description = contract.document["info"]["description"]
    url, body = re.search(r"curl (\S+) .*?-d '(.*?)'", description, re.DOTALL).groups()

    assert url == "http://localhost/predict"
    assert client.post(url, json=json.loads(body)).status_code == 200


# What the service really answers


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/health/live",
        "/health/ready",
        "/model",
        "/model/versions",
        "/metrics",
        "/docs",
        "/redoc",
        "/openapi.json",
    ],
)
def test_what_can_be_read_is_as_promised(client, contract, path):
    response = client.get(path)

    assert response.status_code == 200
    contract.check(response)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/predict", {"features": WINE}, id="a wine"),
        pytest.param("/predict?include=probabilities", {"features": WINE}, id="with probabilities"),
        pytest.param("/predict", {"features": [50.0, *WINE[1:]]}, id="with a warning"),
        pytest.param("/predict/batch?include=probabilities", {"features_list": [WINE, [50.0, *WINE[1:]]]}, id="batch"),
    ],
)
def test_predictions_are_as_promised(client, contract, path, body):
    response = client.post(path, json=body)

    assert response.status_code == 200
    contract.check(response)


@pytest.mark.parametrize("estimator", ["words", "regressor", "without_probabilities"])
def test_predictions_of_other_models_are_as_promised(run, settings, folder, models, estimator):
    folder.upload(getattr(models, estimator).content)
    client = run(settings).test_client()
    contract = Contract.of(client)

    for response in (client.post("/predict?include=probabilities", json={"features": WINE}), client.get("/model")):
        assert response.status_code == 200
        contract.check(response)


@pytest.mark.parametrize(
    ("status", "path", "sent"),
    [
        pytest.param(400, "/predict", {"data": "{", "content_type": "application/json"}, id="bad JSON"),
        pytest.param(
            413, "/predict", {"data": b" " * (1024 * 1024 + 1), "content_type": "application/json"}, id="body"
        ),
        pytest.param(413, "/predict/batch", {"json": {"features_list": [WINE] * 101}}, id="batch"),
        pytest.param(415, "/predict", {"data": "x", "content_type": "text/plain"}, id="media type"),
        pytest.param(422, "/predict", {"json": {"features": ["x", *WINE[1:]]}}, id="bad value"),
        pytest.param(422, "/predict?include=all", {"json": {"features": WINE}}, id="bad parameter"),
        pytest.param(404, "/model/reload", {"json": {"version": "9.9"}}, id="unknown version"),
        pytest.param(422, "/model/reload", {"json": {"version": 1}}, id="version of a wrong type"),
    ],
)
def test_refusals_are_as_promised(client, contract, status, path, sent):
    response = client.post(path, **sent)

    assert response.status_code == status
    contract.check(response)


def test_what_is_said_without_a_model_is_as_promised(app):
    client = app.test_client()
    contract = Contract.of(client)
    responses = [
        *(client.get(path) for path in ("/health", "/health/ready", "/model")),
        client.post("/predict", json={"features": WINE}),
    ]

    assert [response.status_code for response in responses] == [503, 503, 503, 503]
    for response in [client.get("/"), *responses]:
        contract.check(response)


def test_what_is_said_of_a_refused_model_is_as_promised(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    client = run(settings).test_client()
    folder.upload(b"not a model")

    response = client.post("/model/reload")

    assert response.status_code == 422
    Contract.of(client).check(response)


def test_what_is_said_of_a_rollback_is_as_promised(app_with_named_version, folder, models):
    client = app_with_named_version.test_client()
    contract = Contract.of(client)
    folder.upload(models.sevens_and_eights.content)
    responses = [client.post("/model/rollback"), client.post("/model/reload"), client.post("/model/rollback")]

    assert [response.status_code for response in responses] == [409, 200, 200]
    for response in [*responses, client.get("/model/versions"), client.get("/model")]:
        contract.check(response)


def test_what_is_said_of_a_quarantined_model_is_as_promised(app_with_named_version, folder, models):
    client = app_with_named_version.test_client()
    folder.upload(models.sevens_and_eights.content)
    client.post("/model/reload")
    client.post("/model/rollback")

    response = client.post("/model/reload")

    assert response.status_code == 409
    Contract.of(client).check(response)


def test_what_is_said_without_a_store_is_as_promised(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    client = run(settings).test_client()
    folder.vanish()

    response = client.post("/model/reload")

    assert response.status_code == 502
    Contract.of(client).check(response)
    Contract.of(client).check(client.get("/health"))


# Where the service is


def test_is_right_behind_the_prefix_of_a_trusted_proxy(client):
    headers = {"X-Forwarded-Prefix": "/wine", "X-Forwarded-Host": "api.example", "X-Forwarded-Proto": "https"}

    document = client.get("/openapi.json", headers=headers).json

    assert document["servers"] == [{"url": "/wine"}]
    assert "curl https://api.example/wine/predict " in document["info"]["description"]


def test_is_at_the_root_without_a_proxy_and_after_a_request_through_one(client):
    client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/wine"})

    assert client.get("/openapi.json").json["servers"] == [{"url": "/"}]


def test_does_not_repeat_a_host_that_is_none(client):
    document = client.get("/openapi.json", headers={"Host": "x'; rm -rf ~; '"}).json

    assert "rm -rf" not in json.dumps(document)
    assert "curl http://127.0.0.1:8000/predict " in document["info"]["description"]


def test_is_written_once_not_for_each_request(client, monkeypatch):
    monkeypatch.delattr(docs, "write_document")

    assert client.get("/openapi.json").status_code == 200


def test_carries_the_title_and_version_of_the_settings(run, settings):
    app = run(replace(settings, api_title="Cellar", api_version="7.8.9"))

    info = app.test_client().get("/openapi.json").json["info"]

    assert (info["title"], info["version"]) == ("Cellar", "7.8.9")
