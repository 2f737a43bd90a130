"""Integration tests talk to this machine only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_socket

from tests.integration.s3_server import S3Server, running_s3
from tests.integration.stores.faulty_proxy import FaultyProxy, running_proxy


@pytest.fixture(autouse=True)
def loopback_only() -> None:
    """Refuse connections to anywhere else; pytest-socket lifts that after each test."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 endpoint for all tests; each has buckets of its own."""
    with running_s3() as s3:
        yield s3


@pytest.fixture(scope="session")
def shared_proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with running_proxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """What stands between the services and S3; it passes everything on, until told otherwise."""
    yield shared_proxy
    shared_proxy.forget()
