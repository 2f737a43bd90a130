"""The model: what is in use, and bringing another one into use."""

from __future__ import annotations

import json

import pytest

from tests.integration.problems import pointers, problem_of
from tests.models import WINE
from wine_api.services import services_of
from wine_api.serving.wine import FEATURE_NAMES, FEATURES


@pytest.fixture
def app(folder, models, run, settings):
    """A service that serves version 1.0 out of a folder with two versions."""
    folder.publish("1.0", models.fives_and_sixes)
    folder.publish("2.0", models.sevens_and_eights)
    folder.promote("1.0")
    return run(settings)


@pytest.fixture
def reloading(app):
    """Calls that service."""
    return app.test_client()


def version_that_answers(client):
    return client.post("/predict", json={"features": WINE}).json["model_version"]


# GET /model


def test_shows_what_is_in_use(client, models):
    answer = client.get("/model")

    assert answer.status_code == 200
    assert answer.json["version"] == "1.0"
    assert answer.json["digest"] == models.fives_and_sixes.digest
    assert answer.json["generation"] == 1
    assert answer.json["stale"] is False
    assert answer.json["classes"] == [5, 6]
    assert answer.json["metrics"] == {"all_rows": {"accuracy": 0.75}}
    assert answer.json["engine"]
    assert answer.json["loaded_at"].endswith("Z")


def test_says_where_it_came_from(client):
    answer = client.get("/model")

    assert answer.json["source"] == {
        "kind": "local",
        "bucket": None,
        "key": "models/latest/wine_quality_model.joblib",
        "version_id": None,
    }


def test_names_the_features_with_units_and_training_ranges(client, models):
    features = client.get("/model").json["features"]

    wines = models.fives_and_sixes.wines
    assert [feature["name"] for feature in features] == [*FEATURE_NAMES]
    assert [feature["unit"] for feature in features] == [feature.unit for feature in FEATURES]
    assert [feature["minimum"] for feature in features] == wines.min(axis=0).tolist()
    assert [feature["maximum"] for feature in features] == wines.max(axis=0).tolist()


def test_names_the_libraries_that_trained_and_that_serve_it(client):
    answer = client.get("/model")

    assert {"python", "scikit-learn", "numpy", "joblib"} <= set(answer.json["served_with"])
    assert answer.json["trained_with"]["scikit-learn"] == answer.json["served_with"]["scikit-learn"]
    assert answer.json["library_mismatch"] == {}


def test_names_the_workers(client):
    (worker,) = client.get("/model").json["workers"]

    assert worker["slot"] == 0
    assert worker["pid"] > 0
    assert worker["version"] == "1.0"
    assert worker["generation"] == 1
    assert worker["converged"] is True
    assert worker["error"] is None


def test_a_model_without_a_card_shows_what_is_known(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)

    answer = run(settings).test_client().get("/model")

    assert answer.json["version"] == models.fives_and_sixes.plain_version
    assert answer.json["metrics"] is None
    assert answer.json["trained_with"] is None
    assert answer.json["features"][0]["minimum"] is None
    assert answer.json["classes"] == [5, 6]


def test_a_regressor_has_no_classes(run, settings, folder, models):
    folder.upload(models.regressor.content)

    answer = run(settings).test_client().get("/model")

    assert answer.status_code == 200
    assert answer.json["classes"] is None


def test_before_there_is_a_model(run, settings):
    answer = run(settings).test_client().get("/model")

    assert answer.status_code == 503
    assert problem_of(answer)["code"] == "model_not_loaded"
    assert "Retry-After" in answer.headers


# POST /model/reload


def test_reload_brings_what_is_new_in_the_store(reloading, folder, models):
    folder.promote("2.0")

    answer = reloading.post("/model/reload")

    assert answer.status_code == 200
    assert answer.json["outcome"] == "loaded"
    assert answer.json["version"] == "2.0"
    assert answer.json["digest"] == models.sevens_and_eights.digest
    assert [worker["converged"] for worker in answer.json["workers"]] == [True]
    assert reloading.post("/predict", json={"features": WINE}).json["prediction"] == 7


def test_reload_says_when_nothing_is_new(reloading):
    answer = reloading.post("/model/reload")

    assert answer.status_code == 200
    assert answer.json["outcome"] == "unchanged"
    assert answer.json["version"] == "1.0"


@pytest.mark.parametrize("version", ["2.0", "1.0"])
def test_reload_brings_a_version_by_name(reloading, version):
    answer = reloading.post("/model/reload", json={"version": version})

    assert answer.status_code == 200
    assert answer.json["version"] == version
    assert version_that_answers(reloading) == version


def test_a_plain_reload_goes_back_to_the_latest_after_one_by_name(reloading):
    reloading.post("/model/reload", json={"version": "2.0"})

    answer = reloading.post("/model/reload")

    assert answer.json["version"] == "1.0"
    assert version_that_answers(reloading) == "1.0"


def test_reload_of_a_plain_upload_by_what_it_is_called(reloading, folder, models):
    folder.upload(models.words.content)
    reloading.post("/model/reload")

    answer = reloading.post("/model/reload", json={"version": models.words.plain_version})

    assert answer.status_code == 200
    assert answer.json["version"] == models.words.plain_version


@pytest.mark.parametrize(
    "version",
    [
        "3.0",
        "latest",
        "../1.0",
        "/etc/passwd",
        "..",
        ".",
        "1.0/wine_quality_model.joblib",
        "\x00",
        "\ud800",
        "é",
        "x" * 1024,
    ],
)
def test_reload_of_a_version_that_does_not_exist(reloading, version):
    answer = reloading.post("/model/reload", data=json.dumps({"version": version}), content_type="application/json")

    assert answer.status_code == 404
    assert problem_of(answer)["code"] == "model_version_not_found"
    assert version_that_answers(reloading) == "1.0"


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", b"\x80\x04K\x01.", b"ZF" + b"\x00" * 40, b"\x80\x04\x95"],
    ids=["nothing", "text", "a pickled number", "old compression", "a pickle cut short"],
)
def test_reload_of_a_broken_model_keeps_the_old_one(reloading, folder, content):
    folder.upload(content)

    answer = reloading.post("/model/reload")

    assert answer.status_code == 422
    assert problem_of(answer)["code"] == "model_rejected"
    assert answer.json["gate"]
    assert answer.json["reason"]
    assert version_that_answers(reloading) == "1.0"
    assert reloading.get("/health/ready").status_code == 200


def test_reload_of_a_model_whose_card_is_not_its_own(reloading, folder, models):
    folder.publish("2.0", models.sevens_and_eights, lambda card: card["artifact"].update(sha256="0" * 64))

    answer = reloading.post("/model/reload", json={"version": "2.0"})

    assert answer.status_code == 422
    assert problem_of(answer)["code"] == "model_rejected"
    assert version_that_answers(reloading) == "1.0"


def test_reload_of_a_model_that_does_not_give_its_golden_answers(reloading, folder, models):
    folder.publish("2.0", models.sevens_and_eights, lambda card: card["golden"]["predictions"].reverse())

    answer = reloading.post("/model/reload", json={"version": "2.0"})

    assert answer.status_code == 422
    assert problem_of(answer)["code"] == "model_rejected"
    assert version_that_answers(reloading) == "1.0"


def test_reload_of_a_model_that_is_too_large(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    limit = len(models.fives_and_sixes.content)
    client = run(type(settings)(**{**_as_dict(settings), "model_max_bytes": limit})).test_client()
    folder.upload(models.fives_and_sixes.content + b"\x00")

    answer = client.post("/model/reload")

    assert answer.status_code == 422
    assert problem_of(answer)["code"] == "model_rejected"
    assert answer.json["reason"] == "too_large"
    assert version_that_answers(client) == models.fives_and_sixes.plain_version


def test_reload_without_a_latest_model(reloading, folder):
    folder.remove_latest()

    answer = reloading.post("/model/reload")

    assert answer.status_code == 404
    assert problem_of(answer)["code"] == "model_version_not_found"
    assert version_that_answers(reloading) == "1.0"


def test_reload_while_the_store_is_away(reloading, folder):
    folder.vanish()

    answer = reloading.post("/model/reload")

    assert answer.status_code == 502
    assert problem_of(answer)["code"] == "model_store_unavailable"
    assert answer.json["reason"] == "missing_folder"
    assert version_that_answers(reloading) == "1.0"


def test_reload_when_a_worker_does_not_follow(reloading, app, folder, monkeypatch):
    monkeypatch.setattr("wine_api.serving.rollout._CONVERGENCE_SECONDS", 0.1)
    fleet = services_of(app).fleet
    other = type(fleet)(services_of(app).settings.state_folder, "local")
    other.join()
    other.report(fleet.workers()[0].__class__(slot=other.slot, pid=4711, generation=1, version="1.0"))
    folder.promote("2.0")

    answer = reloading.post("/model/reload")

    other.leave()
    assert answer.status_code == 504
    assert problem_of(answer)["code"] == "workers_not_converged"
    assert [worker["converged"] for worker in answer.json["workers"]] == [True, False]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ([], {"": "wrong_type"}),
        (None, {"": "wrong_type"}),
        ({"version": 1}, {"/version": "wrong_type"}),
        ({"version": None}, {"/version": "wrong_type"}),
        ({"version": ["1.0"]}, {"/version": "wrong_type"}),
        ({"version": ""}, {"/version": "invalid"}),
        ({"version": "x" * 1025}, {"/version": "invalid"}),
        ({"versoin": "2.0"}, {"/versoin": "unknown_field"}),
    ],
    ids=["an array", "null body", "a number", "null", "a list", "nothing", "very long", "unknown field"],
)
def test_reload_refuses_what_names_no_version(reloading, body, faults):
    answer = reloading.post("/model/reload", data=json.dumps(body), content_type="application/json")

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == faults


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b'{"version": NaN}', "application/json", 400, "invalid_json"),
        (b"version=2.0", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
    ids=["broken JSON", "NaN", "a form"],
)
def test_reload_reads_its_body_strictly(reloading, body, content_type, status, code):
    answer = reloading.post("/model/reload", data=body, content_type=content_type)

    assert answer.status_code == status
    assert problem_of(answer)["code"] == code


@pytest.mark.parametrize("body", [b"{}", b""], ids=["an empty object", "nothing"])
def test_reload_needs_no_version(reloading, body):
    answer = reloading.post("/model/reload", data=body, content_type="application/json")

    assert answer.status_code == 200


def test_reload_is_not_a_get(client):
    answer = client.get("/model/reload")

    assert answer.status_code == 405
    assert problem_of(answer)["code"] == "method_not_allowed"
    assert answer.headers["Allow"]


def _as_dict(settings):
    return {name: getattr(settings, name) for name in settings.__slots__}
