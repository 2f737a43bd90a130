"""The GitHub workflows: valid, without holes, and with no idea of their own of what is green."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.server import ROOT
from tests.unit.deploy.tools import complaints
from tools.release_notes import notes_of

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yaml"))
CHANGELOG = """\
# Changelog

## [Unreleased]

- Not yet.

## [1.1.0] - 2026-11-24

- Faster.

## [1.0.0] - 2026-11-01

- First.
"""


def jobs_of(path):
    return yaml.safe_load(path.read_text())["jobs"].items()


def test_are_valid():
    assert complaints("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS) == ""
    assert complaints("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml") == ""


def test_have_no_known_holes():
    assert complaints("zizmor", "--offline", "--quiet", "--pedantic", ".github") == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_digest_and_say_their_version(path):
    uses = [line.strip() for line in path.read_text().splitlines() if re.search(r"\buses: (?!\./)", line)]

    assert uses
    assert [line for line in uses if not re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_may_do_more_than_it_says(path):
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {}
    assert all("permissions" in job for _, job in jobs_of(path))
    writers = {name for name, job in jobs_of(path) if job["permissions"].get("contents") == "write"}
    assert writers <= {"release"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_whoever_takes_a_role_is_in_an_environment_that_guards_it(path):
    takers = {name: job for name, job in jobs_of(path) if job["permissions"].get("id-token") == "write"}

    assert {job.get("environment") for job in takers.values()} <= {"registry", "production", "models"}


def test_green_is_what_ci_run_says_on_every_python_that_is_supported():
    checks = dict(jobs_of(FOLDER / "checks.yaml"))["checks"]

    assert checks["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert checks["steps"][-1]["run"].endswith(".ci/run")


def test_nothing_is_shipped_that_is_not_green():
    jobs = dict(jobs_of(FOLDER / "ship.yaml"))

    assert jobs["checks"]["uses"] == "./.github/workflows/checks.yaml"
    assert jobs["image"]["needs"] == "checks"
    assert jobs["deploy"]["needs"] == jobs["release"]["needs"] == "image"


def test_the_notes_of_a_release_are_its_part_of_the_changelog():
    assert notes_of("1.1.0", CHANGELOG) == "- Faster."
    assert notes_of("1.0.0", CHANGELOG) == "- First."


def test_a_release_that_the_changelog_does_not_know_is_refused():
    with pytest.raises(LookupError, match=r"nothing of 1\.2\.0"):
        notes_of("1.2.0", CHANGELOG)
