"""The start page."""

from __future__ import annotations

import pytest

from tests.models import ModelFolder


def test_says_what_this_is_and_which_model_answers(client, models):
    answer = client.get("/")

    assert answer.status_code == 200
    assert answer.json["name"] == "Wine Quality API"
    assert answer.json["version"]
    assert answer.json["description"]
    assert answer.json["model"]["loaded"] is True
    assert answer.json["model"]["version"] == "1.0"
    assert answer.json["model"]["digest"] == models.fives_and_sixes.digest


def test_links_to_every_other_endpoint(client):
    links = client.get("/").json["links"]

    assert {"predict", "predict_batch", "model", "health", "metrics"} <= set(links)
    assert links["predict_batch"] == "/predict/batch"


@pytest.mark.parametrize("name", ["model", "health", "metrics"])
def test_its_links_lead_somewhere(client, name):
    link = client.get("/").json["links"][name]

    assert client.get(link).status_code == 200


def test_links_keep_the_prefix_of_a_trusted_proxy(client):
    answer = client.get("/", headers={"X-Forwarded-Prefix": "/ml/v1"})

    assert answer.json["links"]["predict"] == "/ml/v1/predict"


def test_links_never_lead_to_another_host(client):
    answer = client.get("/", headers={"X-Forwarded-Prefix": "//evil.example"})

    assert answer.json["links"]["predict"] == "/predict"


def test_answers_before_there_is_a_model(run, settings, folder: ModelFolder):
    answer = run(settings).test_client().get("/")

    assert answer.status_code == 200
    assert answer.json["model"] == {
        "loaded": False,
        "version": None,
        "digest": None,
        "engine": None,
        "loaded_at": None,
        "stale": False,
    }
