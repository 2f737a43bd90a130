"""The application: what it is made of, in order."""

from __future__ import annotations

from flask import Flask

from wine_api import api, observability, security
from wine_api.api import short_way
from wine_api.config import Settings
from wine_api.services import Services, build_services, use_services


def create_app(settings: Settings | None = None, services: Services | None = None) -> Flask:
    """Build the application; *settings* come from the environment and *services* from the settings if not given."""
    services = services or build_services(settings or Settings.from_environ())
    app = Flask("wine_api", static_folder=None)
    use_services(app, services)
    short_way.init_app(app, services)
    observability.init_app(app, services.settings, services.metrics, services.response_times, services.spans)
    security.init_app(app, services.settings, services.metrics)
    api.init_app(app, services.settings)
    return app
