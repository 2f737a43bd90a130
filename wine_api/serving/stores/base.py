"""What every model store can do, and the keys under which it keeps models.

    models/<version>/wine_quality_model.joblib      immutable
    models/<version>/model_card.json (+ .sig)       immutable; names the artifact's sha256 and size
    models/latest/wine_quality_model.joblib         a copy of the version in use, written last

`models/latest/…` may also be a plain upload with no card and no version folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from wine_api.errors import WineError

ARTIFACT_NAME = "wine_quality_model.joblib"
CARD_NAME = "model_card.json"
SIGNATURE_NAME = "model_card.json.sig"
VERSIONS_PREFIX = "models/"
LATEST = "latest"

_VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_version_name(text: str) -> bool:
    """Say whether *text* can name a version folder; `latest` cannot, as it is where versions are copied to."""
    return text != LATEST and _VERSION_NAME.fullmatch(text) is not None


def version_key(version: str, name: str = ARTIFACT_NAME) -> str:
    """Return the key of the file *name* in the folder of *version*."""
    return f"{VERSIONS_PREFIX}{version}/{name}"


def version_of(key: str) -> str | None:
    """Return the version whose artifact lies under *key*, or None when *key* is not in a version folder."""
    version = key.removeprefix(VERSIONS_PREFIX).partition("/")[0]
    return version if is_version_name(version) and key == version_key(version) else None


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

    @property
    def published_as(self) -> str | None:
        """The version whose folder holds the card, or None for a plain upload, which has no card."""
        return None if self.version == self.version_id else self.version


def newest_first(models: Iterable[StoredModel]) -> list[StoredModel]:
    """Sort by age; of the same second, 1.10 is newer than 1.9."""
    return sorted(models, key=lambda model: (model.modified_at, natural_order(model.version or "")), reverse=True)


def natural_order(version: str) -> list[tuple[int, str]]:
    """Return a sort key that reads the digits in *version* as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", version)]


class VersionExists(WineError):
    """A published version is never overwritten."""

    status, code, title = 409, "version_exists", "The version exists already"


class InvalidVersionName(WineError):
    """The name cannot be the name of a version folder."""

    status, code, title = 422, "invalid_version_name", "The version's name is not valid"


def require_version_name(text: str) -> None:
    """Raise `InvalidVersionName` unless *text* can name a version folder."""
    if not is_version_name(text):
        raise InvalidVersionName(
            f"A version's name has up to 64 letters, digits, dots, underscores and hyphens, and is not {LATEST!r}."
        )


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
        """Look up *version*: a version folder, or the name or any version id of what is under `MODEL_KEY`."""

    def versions(self) -> list[StoredModel]:
        """List the published versions, newest first."""

    def download(self, model: StoredModel, destination: Path, *, max_bytes: int, deadline: float) -> None:
        """Write the bytes of exactly *model* to *destination*, a path that does not exist yet.

        An object that was replaced since the look is never mixed in: the pinned bytes arrive, or an error, and then
        *destination* does not exist. *deadline* is a `time.monotonic()` value; past it the download is given up. More
        than *max_bytes* raises `ModelRejected("size", "too_large", …)` before anything is downloaded.
        """

    def card(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the model's card, or None where it has none.

        The card is found by the model's version; only its digest proves that it belongs to the artifact.
        """

    def signature(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the card's signature, or None where it has none."""


class PublishingStore(ModelStore, Protocol):
    """A store that can also be written to. The service reads, so it is given a `ModelStore`."""

    def put_version(
        self,
        version: str,
        artifact: Path,
        card: bytes | None,
        signature: bytes | None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Publish *version*, of which nothing is seen before it is whole, or served before it is promoted.

        Raises `VersionExists` rather than change a version, and `InvalidVersionName`. *progress* is called with the
        number of bytes of the artifact that were sent since the last call.
        """

    def promote(self, version: str) -> StoredModel:
        """Copy the artifact of *version* onto `MODEL_KEY`, in one step that readers see whole or not at all."""
