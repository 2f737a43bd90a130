"""Stores filled from outside, as an operator would: the same words for a folder and for a bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from tests.integration.s3_server import S3Server
from wine_api.serving.stores.base import CARD_NAME, SIGNATURE_NAME, PublishingStore, version_key
from wine_api.serving.stores.local import LocalStore
from wine_api.serving.stores.s3 import S3Store

MODEL_KEY = "models/latest/wine_quality_model.joblib"
CONTENT = bytes(range(256)) * 400


def card_for(artifact: bytes) -> bytes:
    """Return the part of a card that a store may read."""
    return json.dumps({"artifact": {"sha256": sha256(artifact).hexdigest(), "size": len(artifact)}}).encode()


class Shelf(Protocol):
    """A store, and the hands of the operator who fills it."""

    store: PublishingStore
    missing: PublishingStore

    def put(self, key: str, content: bytes) -> None:
        """Place a file without any metadata."""

    def publish(self, version: str, artifact: bytes, signature: bytes | None = b"signed") -> None:
        """Place a whole version as `wine-api publish` and `wine-api promote` do."""

    def delete(self, key: str) -> None:
        """Take a file away."""


@dataclass
class LocalShelf:
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.store: PublishingStore = LocalStore(self.folder, model_key=MODEL_KEY)
        self.missing: PublishingStore = LocalStore(self.folder / "missing", model_key=MODEL_KEY)

    def put(self, key: str, content: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def publish(self, version: str, artifact: bytes, signature: bytes | None = b"signed") -> None:
        self.put(version_key(version), artifact)
        self.put(version_key(version, CARD_NAME), card_for(artifact))
        if signature is not None:
            self.put(version_key(version, SIGNATURE_NAME), signature)
        self.put(MODEL_KEY, artifact)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink()


@dataclass
class S3Shelf:
    server: S3Server
    bucket: str

    def __post_init__(self) -> None:
        self.store: PublishingStore = S3Store(self.bucket, model_key=MODEL_KEY)
        self.missing: PublishingStore = S3Store(f"{self.bucket}-missing", model_key=MODEL_KEY)

    def put(self, key: str, content: bytes) -> None:
        self.server.put(self.bucket, key, content)

    def publish(self, version: str, artifact: bytes, signature: bytes | None = b"signed") -> None:
        self.put(version_key(version), artifact)
        self.put(version_key(version, CARD_NAME), card_for(artifact))
        if signature is not None:
            self.put(version_key(version, SIGNATURE_NAME), signature)
        self.server.put(self.bucket, MODEL_KEY, artifact, {"model-version": version})

    def delete(self, key: str) -> None:
        self.server.client().delete_object(Bucket=self.bucket, Key=key)

    def empty(self) -> None:
        self.server.empty_bucket(self.bucket)
