"""Unit tests are offline."""

from __future__ import annotations

import pytest
import pytest_socket


@pytest.fixture(autouse=True)
def offline() -> None:
    """Refuse every socket but those between processes of this machine; pytest-socket lifts that after each test."""
    pytest_socket.disable_socket(allow_unix_socket=True)
