"""API keys in a running service: the file may change, break and vanish; workers may die meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.models import WINE
from tests.server import Server, running_server, start_server, wait_until
from wine_api.security import keys
from wine_api.security.access import Scope

SOON = 1.0  # second within which a revoked key is refused


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "api-keys.json"


@pytest.fixture
def key(key_file):
    return keys.create_key(key_file, "operator", [*Scope], None)


@pytest.fixture
def server(tmp_path, published_models, key_file, key):
    with running_server(
        tmp_path / "server", {"MODEL_DIR": str(published_models.path), "API_KEYS_FILE": str(key_file)}
    ) as server:
        yield server


def ask(server: Server, key: str, path: str = "/model") -> int:
    return server.get(path, {"X-API-Key": key}).status


def test_a_key_that_was_revoked_a_second_ago_is_refused_by_every_worker(server, key_file, key):
    shop = keys.create_key(key_file, "shop", [Scope.MODEL_READ], None)
    wait_until(lambda: ask(server, shop) == 200, "the new key to count")

    keys.revoke_key(key_file, "shop")
    revoked = time.monotonic()

    # One worker that has seen it says nothing of the other: as many refusals as make it certain.
    wait_until(lambda: time.monotonic() >= revoked + SOON, "a second to pass")
    assert [ask(server, shop) for _ in range(40)] == [401] * 40
    assert ask(server, key) == 200


@pytest.mark.parametrize(
    "breakage",
    [
        lambda path: path.write_text('{"keys": ['),
        lambda path: path.write_text(""),
        lambda path: path.write_text('{"keys": [{"name": "x"}]}'),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["cut short", "empty", "incomplete", "gone", "a folder"],
)
def test_a_file_that_breaks_changes_nothing_and_is_logged(server, key_file, key, breakage):
    assert ask(server, key) == 200
    breakage(key_file)

    ask(server, key)
    wait_until(lambda: ask(server, key) and "API keys unreadable" in server.output, "a line in the log")

    assert ask(server, key) == 200
    assert ask(server, "wrong") == 401
    assert server.get("/model").status == 401


def test_a_worker_that_starts_while_the_file_is_broken_has_the_last_good_keys_not_older_ones(server, key_file, key):
    keys.create_key(key_file, "later", [Scope.MODEL_READ], None)
    newer = keys.create_key(key_file, "newest", [Scope.MODEL_READ], None)
    keys.revoke_key(key_file, "operator")
    wait_until(lambda: all(ask(server, key) == 401 for _ in range(20)), "the old key to be refused")
    key_file.write_text("broken")

    before = server.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(server.worker_pids() - before) == 2 and server.answers("/health/ready", 200), "new workers")

    assert {ask(server, newer) for _ in range(10)} == {200}
    assert {ask(server, key) for _ in range(10)} == {401}


def test_a_secret_that_kubernetes_swaps_is_followed(tmp_path, published_models):
    mounted = tmp_path / "secret"
    for state in ("first", "second"):
        (mounted / state).mkdir(parents=True)
    first = keys.create_key(mounted / "first" / "keys.json", "a", [*Scope], None)
    second = keys.create_key(mounted / "second" / "keys.json", "b", [*Scope], None)
    (mounted / "..data").symlink_to("first")
    (mounted / "keys.json").symlink_to("..data/keys.json")
    settings = {"MODEL_DIR": str(published_models.path), "API_KEYS_FILE": str(mounted / "keys.json")}

    with running_server(tmp_path / "server", settings) as server:
        assert ask(server, first) == 200
        (mounted / "..new").symlink_to("second")
        os.replace(mounted / "..new", mounted / "..data")

        wait_until(lambda: all(ask(server, first) == 401 for _ in range(10)), "the first key to be refused")
        assert ask(server, second) == 200


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"keys": [{"name": "s3cret"}]}'], ids=str)
def test_a_file_that_is_broken_at_start_stops_the_start(tmp_path, key_file, content):
    if content is not None:
        key_file.write_text(content)

    server = start_server(tmp_path / "server", {"API_KEYS_FILE": str(key_file)})

    assert server.wait_for_end() != 0
    (line,) = [line for line in server.lines() if line["level"] == "CRITICAL"]
    assert line["message"] == "cannot start"
    assert line["reason"].startswith("API_KEYS_FILE must be a file of API keys; ")


def test_the_start_says_that_everyone_is_let_in(tmp_path, published_models):
    with running_server(tmp_path, {"MODEL_DIR": str(published_models.path)}) as server:
        line = server.wait_for_line("no API keys")

    assert line["level"] == "WARNING"


def test_the_start_says_nothing_of_the_kind_with_keys(server):
    assert "no API keys" not in server.output


def test_the_log_names_the_key_and_never_shows_it(server, key):
    answer = server.post("/predict", {"features": WINE}, {"X-API-Key": key})
    refused = server.post("/predict", {"features": WINE}, {"Authorization": f"Bearer {key}x"})

    assert server.access_lines(answer.request_id)[0]["caller"] == "operator"
    assert "caller" not in server.access_lines(refused.request_id)[0]
    assert key not in server.output


def test_a_file_without_keys_lets_nobody_in(tmp_path, key_file, published_models):
    key_file.write_text(json.dumps({"keys": []}))

    with running_server(
        tmp_path / "server", {"MODEL_DIR": str(published_models.path), "API_KEYS_FILE": str(key_file)}
    ) as server:
        assert server.get("/model").status == 401
        assert server.get("/health").status == 200
