"""Integration tests talk to this machine only."""

from __future__ import annotations

import pytest
import pytest_socket


@pytest.fixture(autouse=True)
def loopback_only() -> None:
    """Refuse connections to anywhere else; pytest-socket lifts that after each test."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)
