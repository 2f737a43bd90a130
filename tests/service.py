"""The application with a model, in this process: what most tests of the HTTP contract need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import secrecy
from wine_api.app import create_app
from wine_api.config import Settings
from wine_api.services import services_of


class Client(FlaskClient):
    """Flask's test client, which reads each answer to its end, as HTTP clients do: only then is a request over."""

    def open(self, *arguments: Any, buffered: bool = True, **options: Any) -> TestResponse:
        """Send a request."""
        answer = super().open(*arguments, buffered=buffered, **options)
        sent = secrecy.in_headers(dict(options.get("headers") or {}))
        secrecy.check(f"{answer.headers}".encode() + answer.data, sent, f"the answer to {arguments}")
        return answer


@contextmanager
def running_app(settings: Settings) -> Iterator[Flask]:
    """Run the only worker of an instance with *settings*, as Gunicorn's hooks would."""
    app = create_app(settings)
    app.test_client_class = Client
    services = services_of(app)
    services.fleet.begin_run(1)
    services.fleet.join()
    services.refresher.start()
    try:
        yield app
    finally:
        services.refresher.stop()
        services.fleet.leave()
