"""compose.yaml: valid, started in order, and of one mind with the code."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.server import ROOT
from tests.unit.deploy.tools import complaints
from wine_api.config import Settings, settings_reference

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
# botocore's own.
BOTOCORE = {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}


def with_defaults(value):
    """Return *value* as compose reads it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def environment_of(name):
    return {key: with_defaults(value) for key, value in SERVICES[name]["environment"].items()}


def mounts_of(name):
    return [with_defaults(volume).split(":") for volume in SERVICES[name].get("volumes", [])]


def test_is_valid():
    assert complaints("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml") == ""


def test_has_the_service_and_everything_around_it():
    assert set(SERVICES) == {"nginx", "wine-api", "publish", "s3", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_images_have_a_tag_of_their_own(name):
    _, _, tag = SERVICES[name]["image"].rpartition(":")

    assert tag not in ("", "latest")
    assert "/" not in tag


@pytest.mark.parametrize("name", SERVICES)
def test_whoever_waits_waits_until_the_other_is_well(name):
    wanted = {"publish": "service_completed_successfully"}
    dependencies = SERVICES[name].get("depends_on", {})

    assert {other: rule["condition"] for other, rule in dependencies.items()} == {
        other: wanted.get(other, "service_healthy") for other in dependencies
    }
    # The image of the service brings its own; what runs once has an exit code.
    assert all("healthcheck" in SERVICES[other] for other in dependencies if other not in ("wine-api", "publish"))


@pytest.mark.parametrize("name", ["wine-api", "publish"])
def test_every_variable_is_a_setting_with_a_value_that_the_service_takes(name):
    known = set(re.findall(r"^\| `([A-Z0-9_]+)`", settings_reference(), re.MULTILINE))

    assert set(environment_of(name)) <= known | BOTOCORE
    assert Settings.from_environ(environment_of(name)).s3_bucket_name == "wine-models"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_only_read(name):
    from_here = [mount for mount in mounts_of(name) if mount[0].startswith("./")]

    assert [mount for mount in from_here if mount[-1] != "ro"] == []
    assert [source for source, *_ in from_here if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_listens_beyond_this_machine_and_nobody_gains_rights(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]


@pytest.mark.parametrize("name", ["wine-api", "publish"])
def test_runs_as_in_production(name):
    user = re.search(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]

    assert with_defaults(SERVICES[name]["user"]) == user
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_the_service_may_stop_in_its_own_time():
    graceful = int(re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])
    drain = int(re.search(r"DRAIN_SECONDS=(\d+)", (ROOT / "Dockerfile").read_text())[1])

    assert int(SERVICES["wine-api"]["stop_grace_period"].removesuffix("s")) > graceful + drain


def test_the_keys_of_the_s3_server_are_those_in_the_mounted_files():
    credentials = (ROOT / "deploy/compose/aws/credentials").read_text()
    server = SERVICES["s3"]["environment"]

    assert f"aws_access_key_id = {server['ROOT_ACCESS_KEY_ID']}\n" in credentials
    assert f"aws_secret_access_key = {server['ROOT_SECRET_ACCESS_KEY']}\n" in credentials
