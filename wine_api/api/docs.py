"""placeholder until the docs are built"""

from flask import Flask

from wine_api.config import Settings


def init_app(app: Flask, settings: Settings) -> None: ...
