"""The `wine-api` command does what it says, or says in one line why not."""

from __future__ import annotations

import json

import joblib
import pytest
from click.testing import CliRunner

import wine_api
from tests.unit.training.synthetic import ANOTHER_WINE, ONE_WINE, write_synthetic_table, write_table
from wine_api.cli import main


@pytest.fixture(scope="module")
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_synthetic_table(tmp_path_factory.mktemp("data") / "wines.csv")


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory, table):
    """What the plainest command says and writes, into a folder that did not exist."""
    output = tmp_path_factory.mktemp("trained") / "new" / "folder"
    return run("train", table, "--output", output, "--version", "2.1", "--folds", 2), output


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_says_its_version(run):
    result = run("--version")

    assert result.output == f"wine-api, version {wine_api.__version__}\n"


def test_train_writes_a_version_with_its_card(trained):
    result, output = trained

    assert result.exit_code == 0
    assert files(output) == ["models/2.1/model_card.json", "models/2.1/wine_quality_model.joblib"]
    card = json.loads((output / "models/2.1/model_card.json").read_text())
    assert card["version"] == "2.1"
    assert card["training_data"][0]["file"] == "wines.csv"
    assert joblib.load(output / "models/2.1/wine_quality_model.joblib").classes_.tolist() == card["classes"]


def test_train_shows_progress_apart_from_the_scores(trained):
    result, _ = trained

    assert "Training" in result.stderr
    assert "Training" not in result.stdout
    assert "accuracy" in result.stdout


def test_train_copies_to_latest_on_demand(run, tmp_path, table):
    result = run("train", table, "--output", tmp_path, "--version", "1", "--folds", 2, "--latest")

    assert result.exit_code == 0
    assert files(tmp_path) == [
        "models/1/model_card.json",
        "models/1/wine_quality_model.joblib",
        "models/latest/wine_quality_model.joblib",
    ]
    latest, version = (tmp_path / "models" / name / "wine_quality_model.joblib" for name in ("latest", "1"))
    assert latest.read_bytes() == version.read_bytes()


def test_train_never_changes_a_version(run, tmp_path, table):
    published = tmp_path / "models" / "1.0" / "wine_quality_model.joblib"
    published.parent.mkdir(parents=True)
    published.write_bytes(b"published")

    result = run("train", table, "--output", tmp_path, "--version", "1.0", "--latest")

    assert result.exit_code == 1
    assert result.stderr == "Error: The version 1.0 exists already, and versions never change.\n"
    assert files(tmp_path) == ["models/1.0/wine_quality_model.joblib"]
    assert published.read_bytes() == b"published"


def test_train_refuses_bad_data_in_one_line_and_leaves_nothing(run, tmp_path):
    table = write_table(tmp_path / "bad.csv", ONE_WINE, ANOTHER_WINE.replace("3.2", "?"))

    result = run("train", table, "--output", tmp_path / "output", "--version", "1")

    assert result.exit_code == 1
    assert result.stderr == f"Error: {table}, line 3: pH is '?', not a number\n"
    assert files(tmp_path) == ["bad.csv"]


def test_train_leaves_nothing_when_there_are_too_few_wines(run, tmp_path):
    table = write_table(tmp_path / "few.csv", ONE_WINE, ANOTHER_WINE)

    result = run("train", table, "--output", tmp_path, "--version", "1")

    assert result.exit_code == 1
    assert result.stderr.endswith("Error: too few wines for 5 folds: no quality has that many different ones\n")
    assert files(tmp_path) == ["few.csv"]


def test_train_says_in_one_line_what_the_disk_refuses(run, tmp_path, table):
    (tmp_path / "file").touch()

    result = run("train", table, "--output", tmp_path / "file" / "folder", "--version", "1")

    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/file/folder: Not a directory\n"


@pytest.mark.parametrize("version", ["latest", "../1", "1/2", "", ".hidden", "1\n", "x" * 65])
def test_train_refuses_a_name_that_no_version_can_have(run, tmp_path, table, version):
    result = run("train", table, "--output", tmp_path, "--version", version)

    assert result.exit_code == 2
    assert "--version" in result.stderr
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no data"),
        pytest.param(["missing.csv"], id="a file that does not exist"),
        pytest.param([".", "--seed", "-1"], id="a folder, and a negative seed"),
    ],
)
def test_train_explains_a_wrong_command_line(run, tmp_path, arguments):
    result = run("train", *arguments, "--output", tmp_path, "--version", "1")

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
