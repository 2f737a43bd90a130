"""The design keeps its promises: what is documented is what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from wine_api import api
from wine_api.app import create_app
from wine_api.config import Settings, settings_reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("design")
    return create_app(Settings(state_dir=folder / "state", model_cache_dir=folder / "cache"))


def test_every_setting_is_documented():
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert settings_reference() in page, "docs/configuration.md is behind the code: run `make docs`"


def test_the_schema_of_the_model_card_is_documented():
    schema = (ROOT / "wine_api" / "serving" / "model_card.schema.json").read_text()

    assert (ROOT / "docs" / "model_card.schema.json").read_text() == schema, "run `make docs`"


def test_every_route_belongs_to_a_resource(app):
    resources = {blueprint.name for blueprint in api.ROUTES}

    strays = [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.partition(".")[0] not in resources]

    assert strays == []


def test_every_resource_is_mounted(app):
    mounted = {rule.endpoint.partition(".")[0] for rule in app.url_map.iter_rules()}

    assert {blueprint.name for blueprint in api.ROUTES} <= mounted


def test_building_the_application_starts_nothing(tmp_path):
    create_app(Settings(state_dir=tmp_path / "state", model_cache_dir=tmp_path / "cache"))

    assert [*tmp_path.iterdir()] == []


def test_two_applications_can_live_in_one_process(tmp_path, app):
    other = create_app(Settings(state_dir=tmp_path / "state", model_cache_dir=tmp_path / "cache"))

    assert other is not app
    assert other.test_client().get("/health/live").status_code == 200
    assert app.test_client().get("/health/live").status_code == 200
