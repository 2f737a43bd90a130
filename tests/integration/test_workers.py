"""Real Gunicorn, from start to stop: loading, reloading, losing workers, draining."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import pytest

from tests.models import WINE, ModelFolder
from tests.server import ROOT, Answer, Server, ended_at_last, read_answer, running_server, start_server, wait_until

BODY = json.dumps({"features": WINE}).encode()
SUCCESSES = 'wine_predictions_total{endpoint="predict",outcome="success"}'
RELOAD = b"POST /model/reload HTTP/1.1\r\nHost: wine\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory, models):
    """A service for several tests, and the folder that it serves."""
    path = tmp_path_factory.mktemp("workers")
    folder = with_two_versions(ModelFolder(path / "store"), models)
    with running_server(path, {"MODEL_DIR": str(folder.path)}) as server:
        yield server, folder, path / "cache"


@pytest.fixture
def server(shared) -> Server:
    """The shared service, with version 1.0 in both workers."""
    server, folder, _ = shared
    folder.promote("1.0")
    server.post("/model/reload", {})
    wait_until(lambda: server.has_converged() and versions_that_answer(server) == {"1.0"}, "version 1.0 in both")
    return server


@pytest.fixture
def store(shared) -> ModelFolder:
    """The folder of the shared service, with versions 1.0 (the latest) and 2.0."""
    return shared[1]


@pytest.fixture
def served(folder, models) -> dict[str, str]:
    """The settings of a service of the test's own, whose folder holds the same."""
    return {"MODEL_DIR": str(with_two_versions(folder, models).path)}


def with_two_versions(folder: ModelFolder, models) -> ModelFolder:
    folder.publish("1.0", models.fives_and_sixes)
    folder.publish("2.0", models.sevens_and_eights)
    folder.promote("1.0")
    return folder


def predict(server: Server) -> Answer:
    return server.post("/predict", {"features": WINE})


def versions_that_answer(server: Server) -> set[str]:
    """Ask often enough that every worker has its turn."""
    return {predict(server).json["model_version"] for _ in range(30)}


def start_request(connection: socket.socket) -> None:
    """Send the first half of a request; returns when a worker has begun to work on it."""
    connection.sendall(
        b"POST /predict HTTP/1.1\r\nHost: wine\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(BODY)
    )
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(BODY[:10])


def finish_request(connection: socket.socket) -> Answer:
    """Send the second half of the request and read the answer."""
    connection.sendall(BODY[10:])
    return read_answer(connection)


# Start and stop


def test_a_whole_run_writes_json_lines_only(tmp_path, served):
    with running_server(tmp_path, served) as server:
        answers = [predict(server), server.get("/nowhere"), server.send_raw(b"hello\r\n\r\n"), server.get("/metrics")]

        server.stop()

    assert server.output.endswith("\n")
    logged = [line.get("request_id") for line in server.lines() if line["logger"] == "wine_api.access"]
    assert len(logged) == len(set(logged))
    assert {answer.request_id for answer in answers} <= set(logged)
    assert all({"timestamp", "level", "logger", "message"} <= set(line) for line in server.lines())


def test_says_where_to_look(server):
    line = server.wait_for_line("serving")

    assert line["url"] == server.url
    assert line["docs"] == f"{server.url}/docs"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_can_be_stopped_while_it_still_loads(tmp_path, served, number):
    server = start_server(tmp_path, served)
    server.wait_for_line("Booting worker")

    code = server.stop(number)

    assert code == 0
    assert server.lines()


def test_finishes_what_is_under_way_when_it_is_stopped_and_is_not_ready_meanwhile(tmp_path, served):
    with (
        running_server(tmp_path, served | {"WEB_CONCURRENCY": "1"}) as server,
        server.connected() as prober,
        server.connected() as connection,
    ):
        assert ask_for_readiness(prober).status == 200
        start_request(connection)
        server.send(signal.SIGTERM)

        answer = wait_until(lambda: not_ready(ask_for_readiness(prober)), "readiness to end")

        assert answer.json == {"status": "draining"}
        assert finish_request(connection).status == 200
        assert server.wait_for_end() == 0


def ask_for_readiness(connection) -> Answer:
    connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: wine\r\n\r\n")
    return read_answer(connection)


def not_ready(answer: Answer) -> Answer | None:
    return answer if answer.status == 503 else None


def test_answers_on_after_sigterm_while_it_drains_but_no_worker_is_ready(tmp_path, served):
    with running_server(tmp_path, served | {"DRAIN_SECONDS": "3600"}) as server:
        server.send(signal.SIGTERM)

        server.wait_for("/health/ready", 503)

        probes = [server.get("/health/ready") for _ in range(20)]
        assert {(probe.status, probe.json["status"]) for probe in probes} == {(503, "draining")}
        answers = [predict(server) for _ in range(20)]
        assert {(answer.status, answer.headers["Connection"]) for answer in answers} == {(200, "close")}
        assert server.get("/health/live").status == 200
        assert server.stop(signal.SIGTERM) == 0  # the second one ends the wait


def test_ends_by_itself_when_it_has_drained(tmp_path, served):
    with running_server(tmp_path, served | {"DRAIN_SECONDS": "1"}) as server:
        began = time.monotonic()

        code = server.stop(signal.SIGTERM)

        assert code == 0
        assert time.monotonic() - began >= 1
        assert server.wait_for_line("draining")["seconds"] == 1


def test_a_worker_that_dies_while_draining_is_replaced_and_not_ready(tmp_path, served):
    with running_server(tmp_path, served | {"DRAIN_SECONDS": "3600"}) as server:
        server.send(signal.SIGTERM)
        server.wait_for_line("draining")
        victim = min(server.worker_pids())

        os.kill(victim, signal.SIGKILL)

        wait_until(lambda: len(server.worker_pids() - {victim}) == 2 and server.has_converged(), "a new worker")
        assert {server.get("/health/ready").status for _ in range(20)} == {503}
        assert predict(server).status == 200
        assert server.stop(signal.SIGINT) == 0


def test_who_has_connected_when_a_worker_stops_is_answered(tmp_path, served):
    with running_server(tmp_path, served | {"WEB_CONCURRENCY": "1"}) as server:
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        with server.connected() as connection:  # waits in the queue of the socket: nobody accepts it
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: wine\r\n\r\n")
            server.send(signal.SIGTERM)
            server.wait_for_line("Handling signal: term")

            os.kill(worker, signal.SIGCONT)

            assert read_answer(connection).status == 200
        assert server.wait_for_end() == 0


def test_who_connects_later_is_refused_and_not_kept_waiting(tmp_path, served):
    with running_server(tmp_path, served | {"WEB_CONCURRENCY": "1"}) as server, server.connected() as connection:
        start_request(connection)  # keeps the worker from ending
        server.send(signal.SIGTERM)

        wait_until(lambda: refuses(server), "connections to be refused")

        assert finish_request(connection).status == 200
        assert server.wait_for_end() == 0


# Sends the signal at the worst moment: the worker has just begun to look for connections.
STOPPED_WHILE_IT_BEGINS = """
import os, runpy, signal
from pathlib import Path
from wine_api.admission import AdmittingWorker

globals().update(runpy.run_path({configuration!r}))
begin, once = AdmittingWorker.set_accept_enabled, Path({once!r})

def set_accept_enabled(self, enabled):
    begin(self, enabled)
    if self._accepting and once.exists():
        once.unlink()
        os.kill(os.getpid(), signal.SIGTERM)

AdmittingWorker.set_accept_enabled = set_accept_enabled
"""


def test_a_worker_can_be_stopped_at_the_moment_at_which_it_begins_to_accept(tmp_path, served):
    once, configuration = tmp_path / "once", str(ROOT / "gunicorn.conf.py")
    (tmp_path / "gunicorn.conf.py").write_text(
        STOPPED_WHILE_IT_BEGINS.format(configuration=configuration, once=str(once))
    )
    (tmp_path / "wsgi.py").write_text((ROOT / "wsgi.py").read_text())
    once.touch()

    with ended_at_last(start_server(tmp_path, served | {"WEB_CONCURRENCY": "1"}, cwd=tmp_path)) as server:
        wait_until(lambda: not once.exists(), "the signal")
        server.wait_for("/health/ready")

        assert predict(server).status == 200
        assert server.wait_for_line("Worker exiting")
        assert not [line for line in server.lines() if line["level"] in ("ERROR", "CRITICAL")]


def refuses(server: Server) -> bool:
    try:
        with server.connected():
            return False
    except (ConnectionRefusedError, ConnectionResetError):  # the latter in the moment of closing: it is refused as well
        return True


def test_needs_no_setting_keeps_its_files_to_itself_and_ends_on_ctrl_c(tmp_path):
    settings = {"STATE_DIR": "", "MODEL_CACHE_DIR": "", "HOME": str(tmp_path / "home")}

    with running_server(tmp_path / "tmp", settings) as server:
        assert server.get("/model").json["source"]["kind"] == "bundled"
        assert predict(server).status == 200
        assert server.stop(signal.SIGINT) == 0

    assert server.lines()
    folders = [*(tmp_path / "tmp").glob("wine-api-*")]
    assert folders
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    assert not (tmp_path / "home").exists()


# Starts that must not be


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "http"),
        ("WEB_CONCURRENCY", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("MODEL_CACHE_TTL", "-1"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named_in_one_line(tmp_path, variable, text):
    server = start_server(tmp_path, {variable: text})

    code = server.wait_for_end()

    assert code == 1
    (line,) = server.lines()
    assert line["level"] == "CRITICAL"
    assert line["message"] == "cannot start"
    assert line["reason"].startswith(f"{variable} must be ")


def test_all_bad_settings_are_named_at_once(tmp_path):
    server = start_server(tmp_path, {"PORT": "x", "MAX_BATCH_ROWS": "x"})

    server.wait_for_end()

    (line,) = server.lines()
    assert "PORT must be" in line["reason"]
    assert "MAX_BATCH_ROWS must be" in line["reason"]


def test_two_instances_cannot_share_a_state_folder(server, shared, tmp_path):
    counted = server.metric(SUCCESSES)

    second = start_server(tmp_path, {"STATE_DIR": str(shared[2].with_name("state"))})

    assert second.wait_for_end() == 1
    assert "STATE_DIR is in use" in second.wait_for_line("cannot start")["reason"]
    assert server.metric(SUCCESSES) == counted
    assert server.has_converged()


# Models that come and go


def test_without_a_model_it_lives_and_serves_as_soon_as_there_is_one(tmp_path, folder, models):
    with running_server(tmp_path, {"MODEL_DIR": str(folder.path)}, until="/health/live") as server:
        pids = wait_until(lambda: len(server.worker_pids()) == 2 and server.worker_pids(), "both workers")
        assert server.get("/health/ready").status == 503
        assert server.get("/health").status == 503
        refused = predict(server)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) > 0

        folder.upload(models.fives_and_sixes.content)

        server.wait_for("/health/ready")
        assert predict(server).json["prediction"] == 5
        assert server.has_converged()
        assert server.worker_pids() == pids


def test_a_reload_reaches_every_worker_and_loses_no_request(server, store):
    generation = server.metric("wine_model_generation")
    with server.connected() as connection:
        start_request(connection)
        store.promote("2.0")

        reloaded = server.post("/model/reload", {})

        assert reloaded.status == 200
        assert [worker["version"] for worker in reloaded.json["workers"]] == ["2.0", "2.0"]
        assert versions_that_answer(server) == {"2.0"}
        assert server.has_converged()
        assert server.metric("wine_model_generation") == generation + 1
        assert finish_request(connection).status == 200


def test_a_reload_of_a_broken_model_changes_nothing(server, store):
    store.upload(b"not a model")

    refused = server.post("/model/reload", {})

    assert refused.status == 422
    assert refused.json["code"] == "model_rejected"
    assert versions_that_answer(server) == {"1.0"}
    assert server.get("/health/ready").status == 200
    assert server.has_converged()


def test_a_reload_of_an_unknown_version_changes_nothing(server):
    refused = server.post("/model/reload", {"version": "3.0"})

    assert refused.status == 404
    assert refused.json["code"] == "model_version_not_found"
    assert versions_that_answer(server) == {"1.0"}
    assert server.has_converged()


def test_a_reload_while_the_store_is_away_changes_nothing_but_health(server, store):
    store.vanish()

    refused = server.post("/model/reload", {})

    store.come_back()
    assert refused.status == 502
    assert refused.json["code"] == "model_store_unavailable"
    assert server.get("/health").json["status"] == "degraded"
    assert server.get("/health/ready").status == 200
    assert versions_that_answer(server) == {"1.0"}


def test_reloads_at_the_same_time_agree(server, store):
    store.promote("2.0")

    with server.connected() as first, server.connected() as second:
        first.sendall(RELOAD)
        second.sendall(RELOAD)
        answers = [read_answer(first), read_answer(second)]

    assert [answer.status for answer in answers] == [200, 200]
    assert [answer.json["version"] for answer in answers] == ["2.0", "2.0"]
    assert sorted(answer.json["outcome"] for answer in answers) == ["loaded", "unchanged"]


def test_the_store_is_looked_at_again_after_the_time_to_live(tmp_path, served, folder):
    with running_server(tmp_path, served | {"MODEL_CACHE_TTL": "1"}) as server:
        folder.promote("2.0")

        wait_until(lambda: predict(server).json["model_version"] == "2.0", "the new model")
        wait_until(server.has_converged, "both workers having it")
        assert versions_that_answer(server) == {"2.0"}


def test_a_restart_serves_from_the_cache_while_the_store_is_away(tmp_path, served, folder):
    with running_server(tmp_path, served) as server:
        assert predict(server).status == 200
    folder.vanish()

    with running_server(tmp_path, served) as server:
        assert versions_that_answer(server) == {"1.0"}
        assert server.get("/health").json["status"] == "degraded"
        assert server.get("/model").json["stale"] is True

        folder.come_back()
        server.post("/model/reload", {})

        assert server.get("/health").json["status"] == "healthy"
        assert server.get("/model").json["stale"] is False


# Workers that die


def test_a_killed_worker_is_replaced_and_nothing_is_forgotten(server, store):
    victim, survivor = sorted(server.worker_pids())
    counted = server.metric(SUCCESSES)
    store.promote("2.0")  # nobody asked for it yet: the new worker must not take it

    os.kill(victim, signal.SIGKILL)

    wait_until(lambda: victim not in server.worker_pids(), "the end of the worker")
    assert predict(server).json["model_version"] == "1.0"
    assert server.metric(SUCCESSES) == counted + 1
    wait_until(lambda: len(server.worker_pids()) == 2 and server.has_converged(), "a new worker with the model")
    assert server.get("/health/ready").status == 200
    assert versions_that_answer(server) == {"1.0"}
    assert server.metric(SUCCESSES) == counted + 31
    assert survivor in server.worker_pids()
    wait_until(lambda: server.metric("wine_requests_in_flight") == 1, "no request of the dead worker in flight")


def test_a_worker_that_lost_its_model_gets_it_back_when_the_store_does(server, store, shared):
    for cached in shared[2].rglob("wine_quality_model.joblib"):
        cached.unlink()
    store.vanish()
    victim = min(server.worker_pids())
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(server.worker_pids() - {victim}) == 2, "a new worker")
    wait_until(lambda: server.get("/health/ready").status == 503, "the new worker being without a model")

    store.come_back()

    wait_until(server.has_converged, "the new worker with the model")
    server.wait_for("/health/ready")
    assert versions_that_answer(server) == {"1.0"}
