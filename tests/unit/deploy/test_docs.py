"""docs/deploy.md: what it names is there."""

from __future__ import annotations

import re

import pytest
from cfnlint.decode import cfn_yaml

from tests.server import ROOT

GUIDE = (ROOT / "docs" / "deploy.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yaml"))


def test_every_file_that_it_names_is_there():
    named = set(re.findall(r"(?:deploy|\.github)/[\w./-]+\w", GUIDE))

    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_target_of_make_that_it_names_is_there():
    named = set(re.findall(r"(?:^ +|`|&& |\) )make ([a-z]+)", GUIDE, re.MULTILINE))

    assert {"image", "up", "down", "smoke", "manifests"} <= named
    assert named <= set(re.findall(r"^([a-z0-9]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("name", ["service", "pipeline"])
def test_it_gives_each_stack_the_parameters_that_it_needs(name):
    command = GUIDE.split(f"deploy/ecs/{name}.yaml --capabilities", 1)[1]
    given = re.split(r"\n\n|\n {4}\w", command.split("--parameter-overrides", 1)[1], maxsplit=1)[0]
    parameters = cfn_yaml.load(str(ROOT / "deploy" / "ecs" / f"{name}.yaml"))["Parameters"]

    names = set(re.findall(r"(\w+)=", given))

    assert {key for key, parameter in parameters.items() if "Default" not in parameter} <= names <= set(parameters)


def test_every_secret_of_the_workflows_is_explained():
    table = GUIDE.split("| secret |")[1].split("\n\n")[0]

    assert set(re.findall(r"secrets\.(\w+)", WORKFLOWS)) == set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE))
