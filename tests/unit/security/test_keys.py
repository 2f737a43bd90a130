"""The file of API keys: what may be in it, and what following it promises."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from wine_api.security import keys
from wine_api.security.access import Scope
from wine_api.security.keys import InvalidKeyFile, KeyRing, NoSuchKey, parse_keys

DIGEST = "ab" * 32
GOOD = {"name": "shop", "sha256": DIGEST, "scopes": ["predict"]}


def written(*entries):
    return json.dumps({"keys": entries}).encode()


def test_a_key_that_was_made_is_found(tmp_path):
    key = keys.create_key(tmp_path / "keys.json", "shop", [Scope.PREDICT, Scope.METRICS], None)

    caller = KeyRing(keys.list_keys(tmp_path / "keys.json")).find(key, 0)

    assert (caller.name, caller.scopes) == ("shop", {Scope.PREDICT, Scope.METRICS})


def test_the_file_holds_no_key_and_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "keys.json"

    key = keys.create_key(path, "shop", [Scope.PREDICT], None)

    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_changed_file_keeps_its_mode(tmp_path):
    path = tmp_path / "keys.json"
    keys.create_key(path, "shop", [Scope.PREDICT], None)
    path.chmod(0o640)

    keys.create_key(path, "cellar", [Scope.PREDICT], None)

    assert path.stat().st_mode & 0o777 == 0o640


def test_no_two_keys_are_alike():
    made = {keys.new_key() for _ in range(100)}

    assert len(made) == 100
    assert all(key.isascii() and len(key) >= 48 for key in made)


def test_keys_that_are_made_at_the_same_time_are_all_kept(tmp_path):
    path = tmp_path / "keys.json"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: keys.create_key(path, f"key {number}", [Scope.PREDICT], None), range(24)))

    assert len(keys.list_keys(path)) == 24


def test_a_name_is_given_once(tmp_path):
    keys.create_key(tmp_path / "keys.json", "shop", [Scope.PREDICT], None)

    with pytest.raises(InvalidKeyFile, match="already"):
        keys.create_key(tmp_path / "keys.json", "shop", [Scope.PREDICT], None)


def test_only_a_key_that_is_there_can_be_revoked(tmp_path):
    keys.create_key(tmp_path / "keys.json", "shop", [Scope.PREDICT], None)

    with pytest.raises(NoSuchKey):
        keys.revoke_key(tmp_path / "keys.json", "cellar")


def test_a_key_ends_when_it_says(tmp_path):
    path = tmp_path / "keys.json"
    end = datetime(2027, 1, 1, tzinfo=UTC)
    key = keys.create_key(path, "shop", [Scope.PREDICT], end)
    ring = KeyRing(keys.list_keys(path))

    assert ring.find(key, (end - timedelta(seconds=1)).timestamp())
    assert ring.find(key, end.timestamp()) is None


@pytest.mark.parametrize("text", ["", "é", "wine_\x00", "\udcff", DIGEST, "x" * 1_000_000], ids=ascii)
def test_anything_else_is_no_key(text):
    assert KeyRing(parse_keys(written(GOOD))).find(text[:50] if text.startswith("x") else text, 0) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "more": 1}',
        b'{"keys": [1]}',
        b"[" * 200_000,
        written({}),
        written({**GOOD, "name": ""}),
        written({**GOOD, "name": 1}),
        written({"name": "shop", "scopes": ["predict"]}),
        written({**GOOD, "sha256": "x"}),
        written({**GOOD, "sha256": "ab"}),
        written({**GOOD, "sha256": 1}),
        written({**GOOD, "scopes": []}),
        written({**GOOD, "scopes": "predict"}),
        written({**GOOD, "scopes": ["admin"]}),
        written({**GOOD, "scopes": [["predict"]]}),
        written({"name": "shop", "sha256": DIGEST}),
        written({**GOOD, "expire_at": "2027-01-01T00:00:00Z"}),
        written({**GOOD, "expires_at": "tomorrow"}),
        written({**GOOD, "expires_at": "2027-01-01"}),
        written({**GOOD, "expires_at": 1}),
        written(GOOD, GOOD),
        written(GOOD, {**GOOD, "name": "other"}),
        written(GOOD, {**GOOD, "sha256": "cd" * 32}),
    ],
    ids=lambda content: content.decode("latin-1")[-60:],
)
def test_a_file_that_is_not_wholly_right_is_refused(content):
    with pytest.raises(InvalidKeyFile) as refusal:
        parse_keys(content)

    assert DIGEST not in str(refusal.value)


def test_a_file_may_hold_no_key():
    assert parse_keys(written()) == []
