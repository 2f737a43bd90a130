"""The commands around publishing say in one line what they did, or why not. None of these tests needs a trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.models import ModelFolder, Models
from wine_api.cli import main
from wine_api.serving.gates import GATES
from wine_api.serving.signatures import parse_private_key, parse_public_keys

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *arguments, **environ: runner.invoke(main, [str(argument) for argument in arguments], env=environ)


@pytest.fixture
def empty_file(tmp_path: Path) -> Path:
    (tmp_path / "empty.joblib").touch()
    return tmp_path / "empty.joblib"


class TestKeys:
    def test_makes_a_pair_and_prints_the_setting(self, run: Run, tmp_path: Path) -> None:
        result = run("keys", "--output", "secrets")

        key = parse_private_key((tmp_path / "secrets/model-signing.key").read_bytes())
        variable, _, value = result.stdout.strip().partition("=")
        assert result.exit_code == 0
        assert variable == "MODEL_PUBLIC_KEYS"
        assert parse_public_keys(value) == (key.public_key(),)
        assert (tmp_path / "secrets/model-signing.key").stat().st_mode & 0o777 == 0o600

    def test_makes_it_where_it_is_told_to(self, run: Run, tmp_path: Path) -> None:
        run("keys", "--private-key", "a.key", "--public-key", "b.pem")

        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.key", "b.pem"]

    def test_shows_nothing_of_the_private_key(self, run: Run, tmp_path: Path) -> None:
        result = run("keys")

        secret = (tmp_path / "model-signing.key").read_text().splitlines()[1]
        assert secret not in result.output
        assert "PRIVATE" not in result.output

    def test_overwrites_nothing(self, run: Run, tmp_path: Path) -> None:
        run("keys")
        before = (tmp_path / "model-signing.key").read_bytes()

        result = run("keys")

        assert result.exit_code == 1
        assert result.stderr == "Error: model-signing.key: File exists\n"
        assert (tmp_path / "model-signing.key").read_bytes() == before


class TestVerify:
    def test_prints_one_line_a_gate(self, run: Run, empty_file: Path) -> None:
        result = run("verify", empty_file)

        head, first, second, *_, end = result.stdout.splitlines()
        assert result.exit_code == 1
        assert head.split() == ["gate", "verdict", "reason", "ms", "detail"]
        assert first.split(maxsplit=4)[:3] == ["size", "refused", "empty_file"]
        assert second.split() == ["digest", "not", "run"]
        assert [line.split()[0] for line in result.stdout.splitlines()[1:-1]] == [*GATES, "parity"]
        assert end == "It would be refused."

    def test_prints_json(self, run: Run, empty_file: Path) -> None:
        result = run("verify", empty_file, "--json")

        answer = json.loads(result.stdout)
        assert result.exit_code == 1
        assert answer["served"] is False
        assert [gate["gate"] for gate in answer["gates"]] == [*GATES, "parity"]
        assert answer["gates"][0] == {
            "gate": "size",
            "outcome": "refused",
            "reason": "empty_file",
            "detail": "The model file is empty.",
            "ms": pytest.approx(0, abs=1000),
        }

    def test_asks_for_a_signature_as_the_service_does(self, run: Run, tmp_path: Path) -> None:
        key = run("keys").stdout.strip().partition("=")[2]
        (tmp_path / "model.joblib").write_bytes(b"model")

        by_setting = run("verify", "model.joblib", "--json", MODEL_PUBLIC_KEYS=key)
        by_option = run("verify", "model.joblib", "--json", "--public-keys", key)
        by_file = run("verify", "model.joblib", "--json", "--public-keys", "model-signing.pub")

        reasons = [json.loads(result.stdout)["gates"][2]["reason"] for result in (by_setting, by_option, by_file)]
        assert reasons == ["unsigned"] * 3

    def test_minds_the_size_that_the_service_allows(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "model.joblib").write_bytes(b"model")

        result = run("verify", "model.joblib", "--json", MODEL_MAX_BYTES="4")

        assert json.loads(result.stdout)["gates"][0]["reason"] == "too_large"


class TestPublish:
    def test_refuses_what_a_gate_refuses_and_leaves_nothing(self, run: Run, empty_file: Path, tmp_path: Path) -> None:
        (tmp_path / "model_card.json").write_text("{}")

        result = run("publish", empty_file, "--to", "store")

        assert result.exit_code == 1
        assert result.stderr == "Error: The gate size refuses the model (empty_file). The model file is empty.\n"
        assert not (tmp_path / "store").exists()

    def test_asks_for_a_card(self, run: Run, empty_file: Path, tmp_path: Path) -> None:
        result = run("publish", empty_file, "--to", "store")

        assert result.exit_code == 1
        assert "model_card.json" in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "store").exists()

    @pytest.mark.parametrize("content", [b"not a key", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"])
    def test_refuses_what_is_not_a_key_without_showing_it(
        self, run: Run, empty_file: Path, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "key").write_bytes(content)

        result = run("publish", empty_file, "--to", "store", "--key", "key")

        assert result.exit_code == 2
        assert "--key" in result.stderr
        assert content.decode().split("\n")[-2 if b"\n" in content else 0] not in result.output


class TestPromote:
    @pytest.fixture
    def store(self, tmp_path: Path, models: Models) -> ModelFolder:
        folder = ModelFolder(tmp_path / "my store")
        folder.publish("1.0", models.fives_and_sixes)
        folder.publish("2.0", models.sevens_and_eights)
        return folder

    def test_says_what_it_was_what_it_is_and_the_way_back(self, run: Run, store: ModelFolder) -> None:
        store.promote("1.0")

        result = run("promote", "2.0", "--to", "my store")

        assert result.exit_code == 0
        assert result.stdout == (
            "latest: 1.0 -> 2.0\n"
            "Services load it when they look next (MODEL_CACHE_TTL), or at once: POST /model/reload\n"
            "To go back:\n"
            "  wine-api promote 1.0 --to 'my store'\n"
        )

    def test_says_when_there_is_no_way_back(self, run: Run, store: ModelFolder) -> None:
        store.upload(b"by hand")

        result = run("promote", "2.0", "--to", "my store")

        assert result.stdout.startswith("latest: an upload without a name -> 2.0\n")
        assert "no version to go back to" in result.stdout

    def test_the_first_one_has_nothing_to_go_back_to(self, run: Run, store: ModelFolder) -> None:
        result = run("promote", "2.0", "--to", "my store")

        assert result.stdout.startswith("latest: nothing -> 2.0\n")
        assert "back" not in result.stdout

    def test_moves_the_key_that_the_services_load(self, run: Run, store: ModelFolder) -> None:
        run("promote", "2.0", "--to", "my store", MODEL_KEY="canary/model.joblib")

        assert (store.path / "canary/model.joblib").exists()
        assert not (store.path / "models/latest").exists()

    def test_refuses_a_version_that_does_not_exist(self, run: Run, store: ModelFolder) -> None:
        result = run("promote", "3.0", "--to", "my store")

        assert result.exit_code == 1
        assert result.stderr == "Error: The store has no such model version.\n"

    def test_makes_no_store(self, run: Run, tmp_path: Path) -> None:
        result = run("promote", "1.0", "--to", "missing")

        assert result.exit_code == 1
        assert result.stderr == "Error: The folder of the models does not exist.\n"
        assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        pytest.param(["promote", "1.0", "--to", "s3://"], {}, "--to", id="no bucket"),
        pytest.param(["promote", "1.0", "--to", "s3://wines/models"], {}, "--to", id="a place in a bucket"),
        pytest.param(["promote", "1.0", "--to", "gs://wines"], {}, "--to", id="another cloud"),
        pytest.param(["promote", "1.0", "--to", ""], {}, "--to", id="nowhere"),
        pytest.param(["promote", "1.0"], {}, "--to", id="no place"),
        pytest.param(["promote", "latest", "--to", "store"], {}, "VERSION", id="a name no version can have"),
        pytest.param(["publish", "missing", "--to", "store"], {}, "FILE", id="no file"),
        pytest.param(["verify", "."], {}, "FILE", id="a folder"),
        pytest.param(["verify", "empty.joblib", "--public-keys", "x"], {}, "--public-keys", id="no key"),
        pytest.param(["verify", "empty.joblib"], {"MODEL_PUBLIC_KEYS": "x"}, "MODEL_PUBLIC_KEYS", id="a bad key"),
        pytest.param(["verify", "empty.joblib"], {"MODEL_MAX_BYTES": "x"}, "MODEL_MAX_BYTES", id="a bad setting"),
        pytest.param(["keys", "make"], {}, "make", id="an unknown kind of keys"),
    ],
)
@pytest.mark.usefixtures("empty_file")
def test_explains_a_wrong_command_line(run: Run, arguments: list[str], environ: dict[str, str], complaint: str) -> None:
    result = run(*arguments, **environ)

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert complaint in result.stderr.splitlines()[-1]


def test_what_a_file_says_cannot_drive_a_terminal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "\x1b[2J.joblib").touch()

    result = run("publish", "\x1b[2J.joblib", "--to", "store")

    assert "\x1b" not in result.stderr
    assert result.stderr.count("\n") == 1
