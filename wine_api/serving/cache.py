"""Downloaded models on this host's disk, under their digests.

<sha256>/wine_quality_model.joblib    with model_card.json and model_card.json.sig where there are any
<sha256>/origin.json                  where it came from, and under which version
<sha256>/verdict.json                 that it passed its trial (see loading.py)
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from wine_api.errors import ModelStoreUnavailable
from wine_api.serving import files
from wine_api.serving.artifact import VERSION_FROM_DIGEST_DIGITS, Artifact, sha256_of
from wine_api.serving.stores.base import ARTIFACT_NAME, CARD_NAME, SIGNATURE_NAME, ModelStore, StoredModel

logger = logging.getLogger(__name__)

_ORIGIN_NAME = "origin.json"
_ORIGIN_KEYS = {"version", "identity", "source"}
_ARRIVING_PREFIX = ".arriving-"
_ABANDONED_SECONDS = 3600  # longer than any download may take
_MOST_MODELS = 5
_MOST_BYTES = 2 * 1024**3
DISK_REASONS = ("disk_full", "disk_error")  # how a store says that it could not write here


class ModelCache:
    """A folder of models that are complete, each under the digest of its bytes, and a spare one.

    The spare is used where the folder cannot be written: a full or read-only disk does not stop serving.
    """

    def __init__(self, folder: Path, spare: Path) -> None:
        self._folders = (folder, spare)

    def fetch(self, store: ModelStore, model: StoredModel, *, max_bytes: int, deadline: float) -> Artifact:
        """Download *model* with its card and signature, and return it as it lies on disk.

        A download that is cut leaves nothing behind. Raises what the store raises, or `ModelStoreUnavailable` with the
        reason `disk_full` or `disk_error` when it can be written nowhere.
        """
        folder, spare = self._folders
        try:
            return _fetch_into(folder, store, model, max_bytes, deadline)
        except (OSError, ModelStoreUnavailable) as error:
            if isinstance(error, ModelStoreUnavailable) and error.reason not in DISK_REASONS:
                raise
            logger.warning("model cache not writable", extra={"event": "cache failed", "reason": str(error)})
        try:
            return _fetch_into(spare, store, model, max_bytes, deadline)
        except OSError as error:
            raise ModelStoreUnavailable("disk_error", "The model could not be written to this host's disk.") from error

    def find(self, digest: str) -> Artifact | None:
        """Return the model with *digest*, or None if it is not here or no longer what its name says."""
        for folder in self._folders:
            origin = _origin(folder / digest)
            path = folder / digest / ARTIFACT_NAME
            if origin is not None and path.is_file() and sha256_of(path) == digest:
                return _read(folder / digest, origin)
        return None

    def find_version(self, version: str) -> Artifact | None:
        """Return the newest model here that is called *version*, if it is whole."""
        for folder in self._models_by_age():
            origin = _origin(folder)
            if origin is not None and origin["version"] == version:
                return self.find(folder.name)
        return None

    def prune(self, keep: Collection[str]) -> None:
        """Drop all but the newest few models, and those whose digests are in *keep*."""
        size = 0
        for count, folder in enumerate(self._models_by_age(), start=1):
            size += sum(path.stat().st_size for path in folder.iterdir())
            if folder.name not in keep and (count > _MOST_MODELS or size > _MOST_BYTES):
                shutil.rmtree(folder, ignore_errors=True)

    def _models_by_age(self) -> list[Path]:
        """Return the folders of all models, the newest first."""
        models = [path.parent for folder in self._folders for path in folder.glob(f"*/{_ORIGIN_NAME}")]
        return sorted(models, key=_modified, reverse=True)


def _fetch_into(folder: Path, store: ModelStore, model: StoredModel, max_bytes: int, deadline: float) -> Artifact:
    files.make_private_folder(folder)
    _drop_abandoned(folder)
    arriving = Path(tempfile.mkdtemp(prefix=_ARRIVING_PREFIX, dir=folder))
    try:
        store.download(model, arriving / ARTIFACT_NAME, max_bytes=max_bytes, deadline=deadline)
        digest = sha256_of(arriving / ARTIFACT_NAME)
        _write_if_any(arriving / CARD_NAME, store.card(model))
        _write_if_any(arriving / SIGNATURE_NAME, store.signature(model))
        origin = {
            "version": model.version or digest[:VERSION_FROM_DIGEST_DIGITS],
            "identity": model.identity,
            "source": store.location(model),
        }
        files.write_json(arriving / _ORIGIN_NAME, origin)
        _move_into_place(arriving, folder / digest)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return _read(folder / digest, origin)


def _drop_abandoned(folder: Path) -> None:
    """Remove what a worker that was killed while it fetched has left."""
    for arriving in folder.glob(f"{_ARRIVING_PREFIX}*"):
        if time.time() - _modified(arriving) > _ABANDONED_SECONDS:
            shutil.rmtree(arriving, ignore_errors=True)


def _move_into_place(arriving: Path, place: Path) -> None:
    """Rename *arriving* to *place*, in place of what an earlier fetch of the same bytes left there.

    The same bytes can come with another card, or under another version.
    """
    came = {path.name for path in arriving.iterdir()}
    if place.exists():
        # A directory cannot be renamed over a full one. Its files can, each at once.
        for path in _contents(arriving):
            os.replace(path, place / path.name)
        # A card and a signature that did not come again are not this upload's.
        for name in {CARD_NAME, SIGNATURE_NAME} - came:
            (place / name).unlink(missing_ok=True)
        os.utime(place)
    else:
        os.rename(arriving, place)


def _contents(folder: Path) -> Iterator[Path]:
    # The origin last: with it a model counts as complete.
    yield from sorted(folder.iterdir(), key=lambda path: path.name == _ORIGIN_NAME)


def _origin(folder: Path) -> dict[str, Any] | None:
    found = files.read_json(folder / _ORIGIN_NAME)
    return found if isinstance(found, dict) and found.keys() >= _ORIGIN_KEYS else None


def _read(folder: Path, origin: Mapping[str, Any]) -> Artifact:
    return Artifact(
        path=folder / ARTIFACT_NAME,
        version=origin["version"],
        digest=folder.name,
        size=(folder / ARTIFACT_NAME).stat().st_size,
        source=origin["source"],
        card_text=_bytes_if_any(folder / CARD_NAME),
        signature=_bytes_if_any(folder / SIGNATURE_NAME),
        identity=origin["identity"],
    )


def _write_if_any(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)


def _bytes_if_any(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process was faster
        return 0.0
