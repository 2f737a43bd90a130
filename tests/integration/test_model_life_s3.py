"""The life of a model in real Gunicorns that serve a bucket, while many ask, workers die and S3 has bad days.

A proxy before S3 holds downloads until the test lets them go, so that things happen in the middle of a reload.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from tests.integration.bucket import Bucket
from tests.integration.s3_server import aws_environment
from tests.integration.stores import faulty_proxy
from tests.integration.stores.faulty_proxy import FaultyProxy
from tests.models import WINE, Model, synthetic_wines
from tests.server import Answer, Server, running_server, wait_until
from tests.unit.serving.crafted import UCI_NAMES
from wine_api.serving.stores.base import ARTIFACT_NAME

CALLERS = 50
RELOAD = b"POST /model/reload HTTP/1.1\r\nHost: wine\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def bucket(s3, models, tmp_path_factory) -> Bucket:
    """A bucket with the versions 1.0, which calls the wine a 5, and 2.0, which calls it a 7."""
    bucket, folder = Bucket(s3, "wines-of-a-long-life"), tmp_path_factory.mktemp("artifacts")
    bucket.publish("1.0", models.fives_and_sixes, folder)
    bucket.publish("2.0", models.sevens_and_eights, folder)
    bucket.promote("1.0", models.fives_and_sixes)
    return bucket


@pytest.fixture(scope="module")
def through_proxy(shared_proxy, bucket) -> dict[str, str]:
    """The settings of a service that sees the bucket through the proxy."""
    return bucket.settings | aws_environment(shared_proxy.url)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, through_proxy):
    with running_server(tmp_path_factory.mktemp("long-life"), through_proxy) as server:
        yield server


@pytest.fixture
def server(shared, proxy, bucket, models) -> Server:
    """The service with version 1.0 in two workers, while 2.0 is the latest in the bucket."""
    bucket.promote("1.0", models.fives_and_sixes)
    for version in ("2.0", "1.0"):  # asked for by name, so that neither is in quarantine
        assert shared.post("/model/reload", {"version": version}).status == 200
    wait_until(lambda: shared.has_converged() and versions_that_answer(shared) == {"1.0"}, "version 1.0 in both")
    bucket.promote("2.0", models.sevens_and_eights)
    proxy.forget()
    return shared


@pytest.fixture
def released(proxy) -> threading.Event:
    """Downloads wait for this."""
    released = threading.Event()
    hold = faulty_proxy.only(ARTIFACT_NAME, faulty_proxy.and_then(released.wait))
    proxy.break_answers(hold, to=("GET",))
    yield released
    released.set()


@pytest.fixture
def callers():
    """What calls the service many times at once."""
    with ThreadPoolExecutor(CALLERS + 1) as callers:
        yield callers


def versions_that_answer(server: Server) -> set[str]:
    """Ask often enough that every worker has its turn."""
    return {server.post("/predict", {"features": WINE}).json["model_version"] for _ in range(30)}


def downloads(proxy: FaultyProxy) -> int:
    return sum(1 for request in proxy.requests if request.method == "GET" and ARTIFACT_NAME in request.path)


def reload_in_the_middle(server: Server, proxy: FaultyProxy, callers: ThreadPoolExecutor) -> Future[Answer]:
    """Begin a reload, and return when its download is held."""
    reload = callers.submit(server.post, "/model/reload", {})
    wait_until(lambda: downloads(proxy), "a download")
    return reload


def loading_worker(server: Server) -> int:
    """Return the process that has the file open into which a download goes."""
    (pid,) = (pid for pid in server.worker_pids() if any(".arriving-" in path for path in open_files(pid)))
    return pid


def open_files(pid: int) -> list[str]:
    paths = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            paths.append(os.readlink(descriptor))
    return paths


def loads_after(server: Server, lines: int) -> list[dict[str, object]]:
    """Return the loads that the log tells of after its first *lines*."""
    return [line for line in server.lines()[lines:] if line.get("event") == "model loaded"]


# Many at once


def test_fifty_reloads_at_once_are_two_downloads_and_keep_nobody_waiting(server, proxy, released, callers):
    lines = len(server.lines())
    first = reload_in_the_middle(server, proxy, callers)
    others = [callers.submit(server.post, "/model/reload", {}) for _ in range(CALLERS - 1)]
    wait_until(lambda: server.metric("wine_requests_in_flight") > CALLERS, "all of them")

    meanwhile = [server.post("/predict", {"features": WINE}) for _ in range(30)]
    alive = [server.get("/health/live") for _ in range(10)]
    nobody_is_answered = not any(reload.done() for reload in [first, *others])
    released.set()
    answers = [reload.result() for reload in [first, *others]]

    assert nobody_is_answered
    assert {answer.json["model_version"] for answer in meanwhile} == {"1.0"}
    assert {answer.status for answer in alive} == {200}
    assert {answer.status for answer in answers} == {200}
    assert {worker["version"] for answer in answers for worker in answer.json["workers"]} == {"2.0"}
    assert [answer.json["outcome"] for answer in answers].count("loaded") == 1
    assert downloads(proxy) <= 2
    wait_until(lambda: len(loads_after(server, lines)) >= 2, "a line about each load")
    assert len(loads_after(server, lines)) == 2
    assert versions_that_answer(server) == {"2.0"}


def test_fifty_reloads_of_a_store_that_breaks_off_share_the_failure(server, proxy, callers):
    proxy.break_answers(faulty_proxy.only(ARTIFACT_NAME, faulty_proxy.status(403)), to=("GET",))

    reloads = [callers.submit(server.post, "/model/reload", {}) for _ in range(CALLERS)]
    answers = [reload.result() for reload in reloads]

    assert {(answer.status, answer.json["code"]) for answer in answers} == {(502, "model_store_unavailable")}
    assert {answer.json["reason"] for answer in answers} == {"forbidden"}
    assert downloads(proxy) < CALLERS / 2
    assert versions_that_answer(server) == {"1.0"}


def test_a_rollback_does_not_wait_for_a_reload_that_waits_for_the_store(server, proxy, released, callers):
    released.set()
    server.post("/model/reload", {})
    released.clear()
    proxy.requests.clear()
    reload = callers.submit(server.post, "/model/reload", {"version": "1.0"})
    wait_until(lambda: downloads(proxy), "a download")

    rolled_back = server.post("/model/rollback", {})

    assert not reload.done()
    assert rolled_back.status == 200
    assert rolled_back.json["version"] == "1.0"
    assert versions_that_answer(server) == {"1.0"}
    released.set()
    assert reload.result().status == 200


# In the middle of a reload


def test_a_reload_whose_worker_is_killed_leaves_one_version_and_no_lock(server, proxy, released, callers):
    reload = reload_in_the_middle(server, proxy, callers)
    victim = loading_worker(server)

    os.kill(victim, signal.SIGKILL)

    assert isinstance(reload.exception(), (OSError, http.client.HTTPException))
    wait_until(lambda: victim not in server.worker_pids() and server.has_converged(), "a new worker")
    assert versions_that_answer(server) == {"1.0"}
    released.set()
    assert server.post("/model/reload", {}).json["version"] == "2.0"
    assert versions_that_answer(server) == {"2.0"}


def test_a_reload_during_which_another_worker_is_killed_reaches_its_successor(server, proxy, released, callers):
    reload = reload_in_the_middle(server, proxy, callers)
    (victim,) = server.worker_pids() - {loading_worker(server)}

    os.kill(victim, signal.SIGKILL)
    released.set()

    assert reload.result().status == 200
    wait_until(lambda: victim not in server.worker_pids() and server.has_converged(), "a new worker")
    assert versions_that_answer(server) == {"2.0"}


def test_a_reload_whose_caller_is_gone_is_finished(server, proxy, released):
    with server.connected() as caller:
        caller.sendall(RELOAD)
        wait_until(lambda: downloads(proxy), "a download")

    released.set()

    wait_until(lambda: versions_that_answer(server) == {"2.0"} and server.has_converged(), "the new version in both")
    assert server.post("/model/reload", {}).json["outcome"] == "unchanged"


def test_a_worker_that_starts_in_the_middle_of_a_reload_comes_up_with_its_model(server, proxy, released, callers):
    reload = reload_in_the_middle(server, proxy, callers)
    server.send(signal.SIGTTIN)
    wait_until(lambda: len(server.worker_pids()) == 3, "a third worker")

    released.set()

    assert reload.result().status == 200
    wait_until(lambda: [worker["converged"] for worker in server.workers()] == [True] * 3, "the model in all three")
    assert versions_that_answer(server) == {"2.0"}
    server.send(signal.SIGTTOU)
    wait_until(server.has_converged, "two workers")


# The original's way


def test_a_bare_forest_with_the_columns_of_uci_is_served_under_its_version_id(server, bucket):
    wines = synthetic_wines()
    forest = RandomForestClassifier(n_estimators=4, random_state=1)
    forest.fit(wines, np.where(wines[:, -1] < WINE[-1], 4, 9))
    model = Model(forest, wines, None)
    prediction, confidence = model.answer(WINE), model.confidence(WINE)
    forest.feature_names_in_ = np.array(UCI_NAMES, dtype=object)  # what fitting a DataFrame leaves
    version_id = bucket.upload(model.content)

    reloaded = server.post("/model/reload", {})

    assert reloaded.status == 200
    assert reloaded.json["version"] == version_id
    answer = server.post("/predict", {"features": WINE}).json
    assert (answer["model_version"], answer["prediction"], answer["confidence"]) == (version_id, prediction, confidence)
    assert versions_that_answer(server) == {version_id}
