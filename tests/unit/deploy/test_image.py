"""The Dockerfile, and the wheel that it installs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.server import ROOT
from tests.unit.deploy.tools import complaints

DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
FINAL = STAGES[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built as the image builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    shutil.copytree(ROOT / "wine_api", source / "wine_api", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", *options], check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_linter_of_dockerfiles_finds_nothing():
    assert complaints("hadolint", "Dockerfile") == ""


def test_builds_without_buildkit_too():
    assert not re.search(r"--mount|--link|--chmod|<<|^# *syntax", DOCKERFILE, re.MULTILINE)


def test_any_official_image_can_be_the_base():
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert {stage.split()[0] for stage in STAGES} == {"${PYTHON_IMAGE}", "dependencies"}


def test_the_dependencies_are_a_layer_of_their_own_from_the_hashed_lock():
    (copied,) = re.findall(r"^COPY (.*)$", STAGES[0], re.MULTILINE)

    assert copied == "requirements-build.lock requirements.lock ./"
    assert STAGES[0].count("--require-hashes") == 2


def test_what_builds_the_wheel_is_what_pyproject_says():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    locked = re.findall(r"^([\w-]+==\S+)", (ROOT / "requirements-build.lock").read_text(), re.MULTILINE)

    assert set(required) <= set(locked)


def test_nothing_of_the_source_tree_is_in_the_final_stage():
    from_here = re.findall(r"^COPY (?!--from)(.*)$", FINAL, re.MULTILINE)

    assert from_here == ["gunicorn.conf.py wsgi.py /srv/wine-api/"]


def test_gunicorn_is_the_first_process_and_hears_the_signals_itself():
    assert 'CMD ["gunicorn", "--config", "gunicorn.conf.py", "wsgi:app"]' in FINAL
    assert "ENTRYPOINT" not in FINAL
    assert "STOPSIGNAL SIGTERM" in FINAL
    assert re.search(r"^USER \d+:\d+$", FINAL, re.MULTILINE)
    assert 'CMD ["python", "-m", "wine_api.healthcheck"]' in FINAL


@pytest.mark.parametrize("kind", ["title", "description", "licenses", "version", "revision"])
def test_the_image_says_what_it_is(kind):
    assert f"org.opencontainers.image.{kind}=" in FINAL


@pytest.mark.parametrize(
    "pattern",
    [
        "wine_api/bundled/models/*/wine_quality_model.joblib",
        "wine_api/bundled/models/*/model_card.json",
        "wine_api/templates/*.html",
        "wine_api/static/*.js",
        "wine_api/serving/*.json",
        "wine_api/serving/*.txt",
        "wine_api/py.typed",
    ],
)
def test_the_wheel_has_all_that_the_service_reads(wheel, pattern):
    found = list(ROOT.glob(pattern.replace("/*.", "/**/*.")))

    assert found
    assert {str(path.relative_to(ROOT)) for path in found} <= set(wheel.namelist())


def test_the_wheel_has_neither_tests_nor_tools(wheel):
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"wine_api"}
