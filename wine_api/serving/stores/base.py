"""What every model store can do, and the keys under which it keeps models.

    models/<version>/wine_quality_model.joblib      immutable
    models/<version>/model_card.json (+ .sig)       immutable; names the artifact's sha256 and size
    models/latest/wine_quality_model.joblib         a copy of the version in use, written last

`models/latest/…` may also be a plain upload with no card and no version folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

ARTIFACT_NAME = "wine_quality_model.joblib"
CARD_NAME = "model_card.json"
SIGNATURE_NAME = "model_card.json.sig"
VERSIONS_PREFIX = "models/"
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One artifact as the store shows it at one moment, without its bytes.

    Two looks at an unchanged object give equal *etag* and *version_id*; a replaced object changes at least one.
    *version* is what people call it (see `find`); None for a plain upload that has no name yet, where the caller
    falls back to the digest.
    """

    key: str
    version: str | None
    etag: str
    version_id: str | None
    size: int
    modified_at: datetime

    @property
    def identity(self) -> str:
        """What changes when, and only when, the object is replaced."""
        return self.version_id or self.etag


class ModelStore(Protocol):
    """A bucket of models, wherever it is.

    Every method raises `ModelStoreUnavailable` when the store does not answer, refuses or is too slow, and
    `ModelVersionNotFound` when what was asked for is not there.
    """

    @property
    def kind(self) -> str:
        """`bundled`, `local` or `s3`."""

    def location(self, model: StoredModel) -> dict[str, str | None]:
        """Say where *model* is, as shown by `GET /model`: kind, bucket, key and version id."""

    def latest(self) -> StoredModel:
        """Look at the artifact under `MODEL_KEY`, without downloading it (one HEAD request)."""

    def find(self, version: str) -> StoredModel:
        """Look up *version*: the name of a version folder, or the name or version id (older ones too) of what is
        under `MODEL_KEY`."""

    def versions(self) -> list[StoredModel]:
        """List the published versions, newest first."""

    def download(self, model: StoredModel, destination: Path, *, max_bytes: int, deadline: float) -> None:
        """Write the bytes of exactly *model* to *destination*, a path that does not exist yet.

        An object that was replaced since the look is never mixed in: the pinned bytes arrive, or an error.
        *deadline* is a `time.monotonic()` value; past it the download is given up. More than *max_bytes* raises
        `ModelRejected("size", "too_large", …)`, before anything is downloaded when the store tells the size.
        """

    def card(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the model's card, or None where it has none."""

    def signature(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the card's signature, or None where it has none."""
