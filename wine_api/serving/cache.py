"""Downloaded models on this host's disk, under their digests.

<sha256>/wine_quality_model.joblib    with model_card.json and model_card.json.sig where there are any
<sha256>/origin.json                  where it came from, and under which version
in_use.json                           the digest that this host served last; what a restart falls back to
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wine_api.serving import files
from wine_api.serving.artifact import VERSION_FROM_DIGEST_DIGITS, Artifact, sha256_of
from wine_api.serving.stores.base import ARTIFACT_NAME, CARD_NAME, SIGNATURE_NAME, ModelStore, StoredModel

logger = logging.getLogger(__name__)

_ORIGIN_NAME = "origin.json"
_IN_USE_NAME = "in_use.json"
_KEPT_MODELS = 3


class ModelCache:
    """A folder of models that are complete, each under the digest of its bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, store: ModelStore, model: StoredModel, *, max_bytes: int, deadline: float) -> Artifact:
        """Download *model* with its card and signature, and return it as it lies on disk.

        A download that is cut leaves nothing behind. Raises what the store raises.
        """
        files.make_private_folder(self._folder)
        arriving = Path(tempfile.mkdtemp(prefix=".arriving-", dir=self._folder))
        try:
            store.download(model, arriving / ARTIFACT_NAME, max_bytes=max_bytes, deadline=deadline)
            digest = sha256_of(arriving / ARTIFACT_NAME)
            self._write_if_any(arriving / CARD_NAME, store.card(model))
            self._write_if_any(arriving / SIGNATURE_NAME, store.signature(model))
            origin = {
                "version": model.version or digest[:VERSION_FROM_DIGEST_DIGITS],
                "identity": model.identity,
                "source": store.location(model),
            }
            files.write_json(arriving / _ORIGIN_NAME, origin)
            self._move_into_place(arriving, self._folder / digest)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        return self._read(digest, origin)

    def find(self, digest: str) -> Artifact | None:
        """Return the model with *digest*, or None if it is not here or no longer what its name says."""
        path = self._folder / digest / ARTIFACT_NAME
        origin = files.read_json(self._folder / digest / _ORIGIN_NAME)
        if origin is None or not path.is_file() or sha256_of(path) != digest:
            return None
        return self._read(digest, origin)

    def find_version(self, version: str) -> Artifact | None:
        """Return the newest model here that is called *version*, if it is whole."""
        for folder in self._models_by_age():
            origin = files.read_json(folder / _ORIGIN_NAME)
            if origin is not None and origin["version"] == version:
                return self.find(folder.name)
        return None

    def remember_in_use(self, digest: str) -> None:
        """Keep *digest* as the model that a restart falls back to, and drop the models beyond the newest few."""
        try:
            files.write_json(self._folder / _IN_USE_NAME, {"digest": digest})
            os.utime(self._folder / digest)
        except OSError:  # a full disk; the model is in use all the same
            logger.exception("model in use not remembered")
        for folder in self._models_by_age()[_KEPT_MODELS:]:
            shutil.rmtree(folder, ignore_errors=True)

    def last_in_use(self) -> Artifact | None:
        """Return the model that this host served last, if it is still here and whole."""
        document = files.read_json(self._folder / _IN_USE_NAME)
        return None if document is None else self.find(document["digest"])

    def _models_by_age(self) -> list[Path]:
        folders = [path.parent for path in self._folder.glob(f"*/{_ORIGIN_NAME}")]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)

    def _read(self, digest: str, origin: Mapping[str, Any]) -> Artifact:
        folder = self._folder / digest
        card = _bytes_if_any(folder / CARD_NAME)
        return Artifact(
            path=folder / ARTIFACT_NAME,
            version=origin["version"],
            digest=digest,
            size=(folder / ARTIFACT_NAME).stat().st_size,
            source=origin["source"],
            card_text=card,
            signature=_bytes_if_any(folder / SIGNATURE_NAME),
            identity=origin["identity"],
        )

    @staticmethod
    def _write_if_any(path: Path, content: bytes | None) -> None:
        if content is not None:
            path.write_bytes(content)

    @staticmethod
    def _move_into_place(arriving: Path, place: Path) -> None:
        """Rename *arriving* to *place*, in place of what an earlier fetch of the same bytes left there.

        The same bytes can come with another card, or under another version.
        """
        if place.exists():
            # A directory cannot be renamed over a full one. Its files can, each at once.
            for name in os.listdir(arriving):
                os.replace(arriving / name, place / name)
        else:
            os.rename(arriving, place)


def _bytes_if_any(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
