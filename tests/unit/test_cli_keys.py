"""`wine-api keys create`, `list` and `revoke` do what they say."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from wine_api.cli import main
from wine_api.security import keys
from wine_api.security.access import Scope


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api-keys.json"


@pytest.fixture
def run(path):
    runner = CliRunner(env={"API_KEYS_FILE": str(path)})
    return lambda *arguments: runner.invoke(main, ["keys", *map(str, arguments)])


def test_create_prints_the_key_alone_and_the_rest_aside(run, path):
    result = run("create", "shop", "--scope", "predict", "--scope", "model:read", "--days", 30)

    assert result.exit_code == 0
    key = result.stdout.strip()
    (known,) = keys.list_keys(path)
    assert known.digest == keys.digest_of(key)
    assert known.scopes == {Scope.PREDICT, Scope.MODEL_READ}
    assert known.expires_at is not None
    assert key not in result.stderr
    assert str(path) in result.stderr


def test_list_says_what_there_is_without_digests(run, path):
    run("create", "shop", "--scope", "predict")
    run("create", "operator", "--scope", "model:write", "--scope", "metrics", "--days", 1)

    shop, operator = run("list").stdout.splitlines()

    assert shop == "shop\tpredict"
    assert operator.startswith("operator\tmetrics,model:write\t20")


def test_revoke_takes_a_key_back(run, path):
    run("create", "shop", "--scope", "predict")

    assert run("revoke", "shop").exit_code == 0
    assert keys.list_keys(path) == []


def test_a_file_can_be_named(run, tmp_path):
    run("create", "shop", "--scope", "predict", "--file", tmp_path / "other.json")

    assert [key.name for key in keys.list_keys(tmp_path / "other.json")] == ["shop"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["create", "shop"], 2, id="no scope"),
        pytest.param(["create", "shop", "--scope", "admin"], 2, id="an unknown scope"),
        pytest.param(["create", "a\nb", "--scope", "predict"], 2, id="a name of two lines"),
        pytest.param(["create", " ", "--scope", "predict"], 2, id="a name of nothing"),
        pytest.param(["create", "shop", "--scope", "predict", "--days", "0"], 2, id="no days"),
        pytest.param(["--output", "x", "create", "shop", "--scope", "predict"], 2, id="an option of the other command"),
        pytest.param(["revoke", "shop"], 1, id="nothing to revoke"),
        pytest.param(["list"], 1, id="no file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, path, arguments, code):
    result = run(*arguments)

    assert result.exit_code == code
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
    assert not path.exists() or keys.list_keys(path) == []


def test_without_a_file_to_write_to_nothing_is_made():
    result = CliRunner(env={"API_KEYS_FILE": ""}).invoke(main, ["keys", "create", "shop", "--scope", "predict"])

    assert result.exit_code == 2
    assert "API_KEYS_FILE" in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_not_one_is_left_alone(run, path):
    path.write_text("not JSON")

    result = run("create", "shop", "--scope", "predict")

    assert result.exit_code == 1
    assert path.read_text() == "not JSON"
