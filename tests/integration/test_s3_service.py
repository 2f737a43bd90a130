"""The whole service over a bucket: real Gunicorn, two workers, a real S3 endpoint that comes and goes."""

from __future__ import annotations

import pytest

from tests.integration.bucket import LATEST_KEY, Bucket
from tests.models import WINE
from tests.server import Answer, Server, running_server, wait_until


@pytest.fixture(scope="module")
def bucket(s3, models, tmp_path_factory) -> Bucket:
    """A bucket with versions 1.0 and 2.0."""
    bucket, folder = Bucket(s3, "wines-of-the-service"), tmp_path_factory.mktemp("artifacts")
    bucket.publish("1.0", models.fives_and_sixes, folder)
    bucket.publish("2.0", models.sevens_and_eights, folder)
    bucket.promote("1.0", models.fives_and_sixes)
    return bucket


@pytest.fixture(scope="module")
def shared(tmp_path_factory, bucket):
    with running_server(tmp_path_factory.mktemp("s3-service"), bucket.settings) as server:
        yield server


@pytest.fixture
def server(shared: Server, bucket: Bucket, models) -> Server:
    """The service with version 1.0 of the bucket in both workers."""
    bucket.promote("1.0", models.fives_and_sixes)
    shared.post("/model/reload", {})
    wait_until(lambda: shared.has_converged() and versions_that_answer(shared) == {"1.0"}, "version 1.0 in both")
    return shared


def predict(server: Server) -> Answer:
    return server.post("/predict", {"features": WINE})


def versions_that_answer(server: Server) -> set[str]:
    """Ask often enough that every worker has its turn."""
    return {predict(server).json["model_version"] for _ in range(30)}


def test_both_workers_serve_the_model_of_the_bucket(server):
    assert {worker["version"] for worker in server.workers()} == {"1.0"}
    assert server.has_converged()
    assert predict(server).json["prediction"] == 5
    assert server.get("/health").json["status"] == "healthy"
    assert server.get("/health").json["store"]["kind"] == "s3"


def test_the_model_names_bucket_key_and_version(server, bucket, models):
    version_id = bucket.promote("2.0", models.sevens_and_eights)
    server.post("/model/reload", {})

    model = server.get("/model").json

    assert model["version"] == "2.0"
    assert model["source"] == {"kind": "s3", "bucket": bucket.name, "key": LATEST_KEY, "version_id": version_id}
    assert model["features"][0]["minimum"] is not None


def test_a_plain_upload_is_named_by_its_version_id(server, bucket, models):
    version_id = bucket.upload(models.words.content)

    reloaded = server.post("/model/reload", {})

    assert reloaded.status == 200
    assert reloaded.json["version"] == version_id
    assert versions_that_answer(server) == {version_id}
    assert predict(server).json["prediction"] == "poor"


@pytest.mark.parametrize("name", ["version", "version id"])
def test_a_reload_finds_an_older_version(server, bucket, models, name):
    older = {"version": "2.0", "version id": bucket.upload(models.sevens_and_eights.content)}[name]
    bucket.promote("1.0", models.fives_and_sixes)

    reloaded = server.post("/model/reload", {"version": older})

    assert reloaded.status == 200
    assert reloaded.json["version"] == older
    assert predict(server).json["prediction"] == 7


@pytest.mark.parametrize("version", ["3.0", "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo"])
def test_a_reload_of_a_version_that_is_not_there(server, version):
    refused = server.post("/model/reload", {"version": version})

    assert refused.status == 404
    assert refused.json["code"] == "model_version_not_found"
    assert versions_that_answer(server) == {"1.0"}


def test_a_reload_of_a_broken_upload_keeps_the_old_model(server, bucket):
    bucket.upload(b"not a model")

    refused = server.post("/model/reload", {})

    assert refused.status == 422
    assert refused.json["code"] == "model_rejected"
    assert versions_that_answer(server) == {"1.0"}


def test_a_bucket_that_goes_away_later_changes_nothing_but_health(server, bucket):
    bucket.s3.stop()
    try:
        refused = server.post("/model/reload", {})

        assert refused.status == 502
        assert refused.json["code"] == "model_store_unavailable"
        assert versions_that_answer(server) == {"1.0"}
        assert server.get("/health").json["status"] == "degraded"
        assert server.get("/health").json["store"]["reachable"] is False
        assert server.get("/health/ready").status == 200
        assert server.metric("wine_store_up") == 0
    finally:
        bucket.s3.start()

    assert server.post("/model/reload", {}).status == 200
    assert server.get("/health").json["status"] == "healthy"


def test_a_bucket_that_is_away_at_the_start_is_served_from_when_it_comes(s3, bucket, tmp_path, models):
    bucket.promote("1.0", models.fives_and_sixes)
    s3.stop()
    try:
        with running_server(tmp_path, bucket.settings, until="/health/live") as server:
            pids = wait_until(lambda: len(server.worker_pids()) == 2 and server.worker_pids(), "both workers")
            assert server.get("/health/ready").status == 503
            refused = predict(server)
            assert refused.status == 503
            assert refused.json["code"] == "model_not_loaded"
            assert int(refused.headers["Retry-After"]) > 0

            s3.start()

            server.wait_for("/health/ready")
            wait_until(server.has_converged, "both workers with the model")
            assert versions_that_answer(server) == {"1.0"}
            assert server.worker_pids() == pids
            assert server.get("/health").json["status"] == "healthy"
    finally:
        s3.stop()
        s3.start()


def test_a_bucket_that_does_not_exist_yet_is_waited_for(s3, models, tmp_path):
    settings = s3.environment() | {"S3_BUCKET_NAME": "wines-to-come"}
    with running_server(tmp_path, settings, until="/health/live") as server:
        server.wait_for("/health/ready", 503)

        Bucket(s3, "wines-to-come").upload(models.fives_and_sixes.content)

        server.wait_for("/health/ready")
        assert predict(server).json["prediction"] == 5
        assert all("wine-tests-secret" not in str(line) for line in server.lines())
