"""The life of a model in real Gunicorns that serve a folder: swapped under load, rolled back, asked for again."""

from __future__ import annotations

import pytest

from tests.models import WINE, ModelFolder
from tests.server import Server, running_server, wait_until
from tests.traffic import Traffic

RELOADS = 20
CLIENTS = 8
PAUSE = 0.01  # seconds between two requests of a client, so that the tests leave the machine some air


@pytest.fixture
def store(folder, models) -> ModelFolder:
    """A folder with versions 1.0 (the latest), which calls the wine a 5, and 2.0, which calls it a 7."""
    folder.publish("1.0", models.fives_and_sixes)
    folder.publish("2.0", models.sevens_and_eights)
    folder.promote("1.0")
    return folder


def settings_of(store: ModelFolder, **settings: str) -> dict[str, str]:
    return {"MODEL_DIR": str(store.path), **settings}


def versions_that_answer(server: Server) -> set[str]:
    """Ask often enough that every worker has its turn."""
    return {server.post("/predict", {"features": WINE}).json["model_version"] for _ in range(30)}


def take(server: Server, store: ModelFolder, version: str):
    """Make *version* the latest, and return the answer to a reload."""
    store.promote(version)
    return server.post("/model/reload", {})


@pytest.mark.parametrize("workers", [2, 1], ids=["two workers", "one worker"])
def test_reloads_under_load_lose_no_request_and_mix_no_answer(tmp_path, store, workers):
    wanted = ["2.0", "1.0"] * (RELOADS // 2)
    with (
        running_server(tmp_path, settings_of(store, WEB_CONCURRENCY=str(workers))) as server,
        Traffic(server, CLIENTS, pause=PAUSE) as traffic,
    ):
        reloads = [take(server, store, version) for version in wanted]

    assert traffic.errors == []
    assert traffic.statuses == {200}
    assert traffic.said == {("1.0", 5), ("2.0", 7)}
    assert [reload.status for reload in reloads] == [200] * RELOADS
    had = [[worker["version"] for worker in reload.json["workers"]] for reload in reloads]
    assert had == [[version] * workers for version in wanted]


def test_a_rollback_reaches_every_worker_without_the_store_and_the_version_left_stays_away(tmp_path, store):
    settings = settings_of(store, MODEL_CACHE_TTL="0.2")
    with running_server(tmp_path, settings) as server:
        take(server, store, "2.0")
        store.vanish()

        rolled_back = server.post("/model/rollback", {})

        assert rolled_back.status == 200
        assert [worker["version"] for worker in rolled_back.json["workers"]] == ["1.0", "1.0"]
        assert versions_that_answer(server) == {"1.0"}
        store.come_back()
        wait_for_looks(server, 2)
        assert versions_that_answer(server) == {"1.0"}
        refused = server.post("/model/reload", {})
        assert refused.status == 409
        assert refused.json["code"] == "model_quarantined"
        assert '{"version": "2.0"}' in refused.json["detail"]
        assert versions_that_answer(server) == {"1.0"}

    with running_server(tmp_path, settings | {"STATE_DIR": str(tmp_path / "another state")}) as server:
        assert versions_that_answer(server) == {"1.0"}
        wait_for_looks(server, 2)
        assert versions_that_answer(server) == {"1.0"}

        asked_for = server.post("/model/reload", {"version": "2.0"})

        assert asked_for.status == 200
        assert versions_that_answer(server) == {"2.0"}
        assert server.post("/model/reload", {}).json["version"] == "2.0"


def wait_for_looks(server: Server, count: int) -> None:
    """Wait until the service has looked at the store *count* times, and found it."""
    for _ in range(count):
        before = looked_at(server)
        wait_until(lambda before=before: looked_at(server) not in (None, before), "a look at the store")


def looked_at(server: Server) -> str | None:
    store = server.get("/health").json["store"]
    return store["checked_at"] if store["reachable"] else None
