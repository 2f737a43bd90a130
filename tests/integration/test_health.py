"""The health endpoints: for people, and for whoever starts and stops the service."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.integration.problems import problem_of
from tests.models import WINE
from wine_api.services import services_of


@pytest.fixture
def served(folder, models, run, settings):
    """A service of the test's own, with a model."""
    folder.upload(models.fives_and_sixes.content)
    return run(settings)


@pytest.fixture
def empty_client(run, settings):
    """Calls a service whose store holds no model."""
    return run(settings).test_client()


def test_a_service_with_a_model_is_healthy(client, models):
    answer = client.get("/health")

    assert answer.status_code == 200
    assert answer.json["status"] == "healthy"
    assert answer.json["model"]["loaded"] is True
    assert answer.json["model"]["version"] == "1.0"
    assert answer.json["model"]["digest"] == models.fives_and_sixes.digest
    assert answer.json["model"]["stale"] is False
    assert answer.json["model"]["engine"]
    assert answer.json["workers"] == {"alive": 1, "on_target_version": 1}
    assert answer.json["uptime_seconds"] > 0


def test_says_how_the_store_was_when_it_was_last_looked_at(client):
    store = client.get("/health").json["store"]

    assert store["kind"] == "local"
    assert store["reachable"] is True
    assert store["error"] is None
    assert store["latency_ms"] >= 0
    assert datetime.fromisoformat(store["checked_at"]).tzname() == "UTC"


def test_says_how_long_requests_took(app, folder):
    before = app.test_client().get("/health").json["response_times"]
    app.test_client().post("/predict", json={"features": WINE})
    services_of(app).rollout.report()

    after = app.test_client().get("/health").json["response_times"]

    assert before == {"count": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None}
    assert after["count"] == 2
    assert 0 < after["p50_ms"] <= after["p95_ms"] <= after["p99_ms"]


def test_a_service_without_a_model_is_unhealthy(empty_client):
    answer = empty_client.get("/health")

    assert answer.status_code == 503
    assert answer.json["status"] == "unhealthy"
    assert answer.json["model"]["loaded"] is False
    assert answer.json["workers"] == {"alive": 1, "on_target_version": 0}


def test_a_store_without_a_model_has_answered_all_the_same(empty_client):
    store = empty_client.get("/health").json["store"]

    assert store["reachable"] is True
    assert store["error"] == "model_version_not_found"


def test_a_store_that_goes_away_only_degrades(served, folder):
    client = served.test_client()
    folder.vanish()

    client.post("/model/reload")

    health = client.get("/health")
    assert health.status_code == 200
    assert health.json["status"] == "degraded"
    assert health.json["store"]["reachable"] is False
    assert health.json["store"]["error"] == "missing_folder"
    assert client.get("/health/ready").status_code == 200
    assert client.post("/predict", json={"features": WINE}).status_code == 200


def test_is_healthy_again_when_the_store_comes_back(served, folder):
    client = served.test_client()
    folder.vanish()
    client.post("/model/reload")
    folder.come_back()

    client.post("/model/reload")

    assert client.get("/health").json["status"] == "healthy"


def test_a_model_from_the_cache_is_stale_and_degrades(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    run(settings)
    folder.vanish()

    client = run(settings).test_client()

    assert client.post("/predict", json={"features": WINE}).status_code == 200
    assert client.get("/health").json["status"] == "degraded"
    assert client.get("/health").json["model"]["stale"] is True
    assert client.get("/health/ready").status_code == 200


def test_is_alive_whatever_else_happens(empty_client):
    answer = empty_client.get("/health/live")

    assert answer.status_code == 200
    assert answer.json == {"status": "alive"}


def test_is_not_ready_without_a_model(empty_client):
    answer = empty_client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json == {"status": "loading"}


def test_is_ready_with_a_model(client):
    answer = client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json == {"status": "ready"}


def test_is_not_ready_while_it_stops_but_still_answers(served):
    client = served.test_client()
    services_of(served).draining.set()

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json == {"status": "draining"}
    assert client.get("/health/live").status_code == 200
    assert client.post("/predict", json={"features": WINE}).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_takes_head_but_no_post(client, path):
    assert client.head(path).status_code == 200
    assert problem_of(client.post(path))["code"] == "method_not_allowed"
