"""A bucket with versioning, filled as an operator fills it."""

from __future__ import annotations

from pathlib import Path

from tests.integration.s3_server import S3Server
from tests.models import Model
from wine_api.serving.stores.base import CARD_NAME, LATEST, version_key

LATEST_KEY = version_key(LATEST)


class Bucket:
    """A bucket at *s3*."""

    def __init__(self, s3: S3Server, name: str) -> None:
        self.s3 = s3
        self.name = s3.create_bucket(name)

    @property
    def settings(self) -> dict[str, str]:
        return self.s3.environment() | {"S3_BUCKET_NAME": self.name}

    def publish(self, version: str, model: Model, folder: Path) -> None:
        """Place *model* with its card as *version*; *folder* is for the file meanwhile."""
        artifact = folder / "artifact.joblib"
        artifact.write_bytes(model.content)
        self.s3.put(self.name, version_key(version), model.content)
        self.s3.put(self.name, version_key(version, CARD_NAME), model.card(artifact, version))

    def promote(self, version: str, model: Model) -> str | None:
        return self.s3.put(self.name, LATEST_KEY, model.content, {"model-version": version})

    def upload(self, content: bytes) -> str | None:
        """Place a plain upload and return its VersionId."""
        return self.s3.put(self.name, LATEST_KEY, content)
