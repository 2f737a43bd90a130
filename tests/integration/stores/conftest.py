"""An empty store for each test, on one S3 endpoint for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.s3_server import S3Server, use_aws_environment
from tests.integration.stores.faulty_proxy import FaultyProxy
from tests.integration.stores.shelves import CONTENT, MODEL_KEY, LocalShelf, S3Shelf, Shelf
from wine_api.serving.stores.s3 import Patience, S3Store

# Long enough for a busy machine, as no test waits for it to pass.
NO_RETRY = Patience(attempts=1)

Far = Callable[..., S3Store]


@pytest.fixture(scope="session")
def shared_buckets(s3: S3Server) -> dict[str, S3Shelf]:
    """Two buckets for all tests: a store builds its client once, and that takes longer than most tests."""
    return {
        "bucket": _new_bucket(s3, "wines"),
        "bucket without versioning": _new_bucket(s3, "plain-wines", versioning=False),
    }


@pytest.fixture(scope="session")
def shared_stock(s3: S3Server) -> S3Shelf:
    shelf = _new_bucket(s3, "stocked-wines")
    shelf.publish("1.0", CONTENT)
    return shelf


@pytest.fixture
def stocked(shared_stock: S3Shelf, monkeypatch: pytest.MonkeyPatch) -> S3Shelf:
    """A bucket with the version 1.0, whose artifact is CONTENT. For tests that only read, or try to."""
    use_aws_environment(monkeypatch, shared_stock.server.url)
    return shared_stock


@pytest.fixture(params=["folder", "bucket", "bucket without versioning"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """An empty store of each kind."""
    if request.param == "folder":
        return LocalShelf(tmp_path / "folder")
    return _emptied(request, request.param)


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> S3Shelf:
    """An empty bucket with versioning."""
    return _emptied(request, "bucket")


@pytest.fixture
def plain_bucket(request: pytest.FixtureRequest) -> S3Shelf:
    """An empty bucket without versioning."""
    return _emptied(request, "bucket without versioning")


def _new_bucket(s3: S3Server, name: str, *, versioning: bool = True) -> S3Shelf:
    shelf = S3Shelf(s3, s3.create_bucket(name, versioning=versioning))
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_aws_environment(monkeypatch, s3.url)
        shelf.store.versions()  # so that the client is built now, for this address
    return shelf


def _emptied(request: pytest.FixtureRequest, name: str) -> S3Shelf:
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    shelf: S3Shelf = request.getfixturevalue("shared_buckets")[name]
    use_aws_environment(monkeypatch, shelf.server.url)
    shelf.empty()
    return shelf


@pytest.fixture
def proxy(shared_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """A proxy before the endpoint. Stores that are opened from now on go through it; those of the shelves do not."""
    shared_proxy.forget()
    use_aws_environment(monkeypatch, shared_proxy.url)
    return shared_proxy


@pytest.fixture(scope="session")
def shared_far_stores() -> dict[tuple[str, Patience], S3Store]:
    return {}


@pytest.fixture
def far(proxy: FaultyProxy, shared_far_stores: dict[tuple[str, Patience], S3Store]) -> Far:
    """What opens the bucket of a shelf through the proxy."""

    def open_through_proxy(shelf: S3Shelf, patience: Patience = NO_RETRY) -> S3Store:
        fresh = S3Store(shelf.bucket, model_key=MODEL_KEY, patience=patience)
        return shared_far_stores.setdefault((shelf.bucket, patience), fresh)

    return open_through_proxy
