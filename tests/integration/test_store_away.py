"""Days on which the store does not answer, answers wrongly or hands nothing over: predictions never notice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.bucket import Bucket
from tests.integration.s3_server import aws_environment
from tests.integration.stores.faulty_proxy import (
    Exchange,
    Fault,
    cut,
    cut_at,
    only,
    reset,
    silence,
    status,
    trickle,
)
from tests.models import WINE
from tests.server import Server, running_server, wait_until
from tests.traffic import Traffic
from wine_api.serving.stores.base import ARTIFACT_NAME

CLIENTS = 2
PAUSE = 0.02
GIVEN_UP = "3"  # MODEL_LOAD_TIMEOUT; long enough for a download from a store that works


@pytest.fixture(scope="module")
def bucket(s3, models) -> Bucket:
    bucket = Bucket(s3, "wines-far-away")
    bucket.promote("1.0", models.fives_and_sixes)
    return bucket


@pytest.fixture(scope="module")
def settings(shared_proxy, bucket) -> dict[str, str]:
    """A service that looks at the store through the proxy, all the time."""
    far = bucket.settings | aws_environment(shared_proxy.url)
    return far | {"MODEL_CACHE_TTL": "0.2", "MODEL_LOAD_TIMEOUT": GIVEN_UP}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("far")


@pytest.fixture(scope="module")
def server(place, settings):
    with running_server(place, settings) as server:
        yield server


def health(server: Server):
    return server.get("/health").json


def is_degraded(server: Server, cause: str) -> bool:
    store = health(server)["store"]
    return health(server)["status"] == "degraded" and (store["reachable"], store["error"]) == (False, cause)


def serves(server: Server, version: str) -> bool:
    """Whether every worker serves *version*, and all is well."""
    return (
        health(server)["status"] == "healthy"
        and health(server)["store"]["reachable"] is True
        and {worker["version"] for worker in server.workers()} == {version}
    )


def events(server: Server, lines: int):
    """Return what the log says after its first *lines*, each event with its reason."""
    return {(line.get("event"), line.get("reason")) for line in server.lines()[lines:]}


def download(fault: Fault) -> Fault:
    return only(ARTIFACT_NAME, fault)


def all_but_the_last_byte(exchange: Exchange) -> None:
    cut(len(exchange.body) - 1)(exchange)


@pytest.mark.parametrize(
    ("method", "fault", "cause"),
    [
        ("HEAD", status(500, "InternalError"), "server_error"),
        ("HEAD", reset, "unreachable"),
        ("HEAD", status(403), "forbidden"),
        ("HEAD", status(404), "missing_bucket"),
        ("GET", download(status(500, "InternalError")), "server_error"),
        ("GET", download(reset), "unreachable"),
        ("GET", download(status(403, "AccessDenied")), "forbidden"),
        ("GET", download(trickle(1000)), "timeout"),
        ("GET", download(cut_at(0)), "truncated"),
        ("GET", download(cut_at(1000)), "truncated"),
        ("GET", download(all_but_the_last_byte), "truncated"),
    ],
    ids=[
        "looks answered 500",
        "looks reset",
        "looks forbidden",
        "no bucket",
        "downloads answered 500",
        "downloads reset",
        "downloads forbidden",
        "downloads at 1 KB/s",
        "downloads cut before the first byte",
        "downloads cut early",
        "downloads cut before the last byte",
    ],
)
def test_a_store_with_a_bad_day_costs_no_prediction_is_named_and_taken_from_again(
    server, proxy, bucket, models, method, fault, cause
):
    bucket.promote("1.0", models.fives_and_sixes)
    wait_until(lambda: serves(server, "1.0"), "a good day with version 1.0")
    lines = len(server.lines())
    with Traffic(server, CLIENTS, pause=PAUSE) as traffic:
        proxy.break_answers(fault, to=(method,))
        bucket.promote("2.0", models.sevens_and_eights)

        wait_until(lambda: is_degraded(server, cause), f"{cause} in /health")
        during = [*traffic.heard]
        proxy.heal()

        wait_until(lambda: serves(server, "2.0"), "version 2.0, without any help")

    assert traffic.errors == []
    assert traffic.statuses == {200}
    assert {heard.says for heard in during} == {("1.0", 5)}
    wait_until(lambda: ("store away", cause) in events(server, lines), f"a line about {cause}")
    wait_until(lambda: ("store back", None) in events(server, lines), "a line about its end")


@pytest.mark.parametrize("fault", [reset, silence, status(503)], ids=["resets", "silence", "503"])
def test_a_start_without_the_store_serves_the_model_of_before_as_stale(
    server, place, tmp_path, settings, proxy, bucket, models, fault
):
    bucket.promote("1.0", models.fives_and_sixes)
    wait_until(lambda: serves(server, "1.0"), "version 1.0 in the cache")
    shutil.copytree(place / "cache", tmp_path / "cache")
    proxy.break_answers(fault)

    with running_server(tmp_path, settings) as restarted:
        assert restarted.get("/model").json["stale"] is True
        assert health(restarted)["status"] == "degraded"
        assert restarted.post("/predict", {"features": WINE}).json["prediction"] == 5

        proxy.heal()

        wait_until(lambda: serves(restarted, "1.0"), "the store's word that the model is right")
        assert restarted.get("/model").json["stale"] is False
