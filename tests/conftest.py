"""What all tests share: models of known answers, folders of them, and the service in this process or in Gunicorn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.models import ModelFolder, Models
from tests.server import STARTED, running_server
from tests.service import running_app
from wine_api.config import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--url", help="Run the end-to-end tests against the service at this URL (else WINE_API_URL).")


@pytest.fixture(scope="session", autouse=True)
def secrecy_of_all_logs() -> Iterator[None]:
    """Look through what each Gunicorn of this run has written, for the secrets that it was given or was sent."""
    yield
    for server in STARTED:
        server.has_written_no_secret()


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model folder of each test is: at one place, as a cache remembers models by where they came from."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def folder(place: Path) -> ModelFolder:
    """An empty model folder."""
    for leftover in place.iterdir():
        shutil.rmtree(leftover)
    return ModelFolder(place / "store")


@pytest.fixture(scope="session")
def published_models(tmp_path_factory: pytest.TempPathFactory, models: Models) -> ModelFolder:
    """A model folder that nobody changes: version 1.0 is the latest, version 2.0 is there too."""
    folder = ModelFolder(tmp_path_factory.mktemp("published") / "store")
    folder.publish("2.0", models.sevens_and_eights)
    folder.publish("1.0", models.fives_and_sixes)
    folder.promote("1.0")
    return folder


@pytest.fixture(scope="session")
def shared_app(tmp_path_factory: pytest.TempPathFactory, published_models: ModelFolder) -> Iterator[Flask]:
    """The service with model 1.0, for tests that change nothing and count nothing."""
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        model_cache_dir=tmp_path_factory.mktemp("cache"),
        model_dir=published_models.path,
        max_body_bytes=1024 * 1024,
        max_batch_rows=100,
    )
    with running_app(settings) as app:
        yield app


@pytest.fixture
def client(shared_app: Flask) -> FlaskClient:
    """Calls the service with model 1.0."""
    return shared_app.test_client()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache that outlives the tests, so that each model has to pass its gates once only."""
    return tmp_path_factory.mktemp("cache-of-all")


@pytest.fixture
def settings(tmp_path: Path, folder: ModelFolder, shared_cache: Path) -> Settings:
    """Settings for a service of the test's own, which serves what is put into *folder* and remembers nothing."""
    for remembered in (*shared_cache.rglob("served.json"), *shared_cache.rglob("quarantine.json")):
        remembered.unlink()
    return Settings(state_dir=tmp_path / "state", model_cache_dir=shared_cache, model_dir=folder.path)


@pytest.fixture
def run() -> Iterator[Callable[[Settings], Flask]]:
    """Runs services of the test's own until it ends."""
    with ExitStack() as running:
        yield lambda settings: running.enter_context(running_app(settings))


@pytest.fixture
def app(run: Callable[[Settings], Flask], settings: Settings) -> Flask:
    """A service of the test's own, with what *folder* holds by now."""
    return run(settings)


@pytest.fixture(scope="session")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the service is that the end-to-end tests call: the one they were pointed to, else one of their own."""
    given = request.config.getoption("--url") or os.environ.get("WINE_API_URL")
    if given:
        yield given
        return
    with running_server(tmp_path_factory.mktemp("e2e")) as server:
        yield server.url
