"""Stand-ins that work: a store in memory, a loader that needs no scikit-learn, and an engine of known answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from wine_api.errors import ModelRejected, ModelStoreUnavailable, ModelVersionNotFound
from wine_api.serving.artifact import Artifact, ModelCard
from wine_api.serving.engines.base import Answers, Engine
from wine_api.serving.holder import LoadedModel
from wine_api.serving.stores.base import LATEST, StoredModel, version_key
from wine_api.serving.wine import Label, Matrix

BROKEN = b"broken"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class FakeEngine:
    """Says the same of every wine."""

    label: Label = 5
    confidence: float | None = 0.75
    probabilities: tuple[float, ...] | None = (0.75, 0.25)
    name: str = "fake"

    def predict(self, wines: Matrix) -> Answers:
        rows = len(wines)
        return Answers(
            [self.label] * rows,
            None if self.confidence is None else np.full(rows, self.confidence),
            None if self.probabilities is None else np.tile(np.array(self.probabilities), (rows, 1)),
        )


def loaded_model(version: str = "1.0", *, card: ModelCard | None = None, engine: Engine | None = None) -> LoadedModel:
    """Return a model as if it had passed every gate."""
    return LoadedModel(
        version=version,
        digest=digest_of(version.encode()),
        identity=f"identity of {version}",
        source={"kind": "local", "bucket": None, "key": version_key(version), "version_id": None},
        card=card,
        engine=engine or FakeEngine(),
        engine_reason=None,
        classes=(5, 6),
        library_mismatch={},
        loaded_at=_EPOCH,
        load_ms=1.5,
    )


@dataclass
class FakeLoader:
    """Takes every model but BROKEN ones; *loaded* is what it was asked for, *fault* what it raises instead."""

    loaded: list[str] = field(default_factory=list)
    fault: Exception | None = None

    def load(self, artifact: Artifact, deadline: float, *, survived: Callable[[], None] | None = None) -> LoadedModel:
        if survived is not None:
            survived()
        self.loaded.append(artifact.version)
        if self.fault is not None:
            raise self.fault
        if artifact.path.read_bytes().startswith(BROKEN):
            raise ModelRejected("unpickling", "not_a_model", "The file is not a model.")
        return replace(
            loaded_model(artifact.version),
            digest=artifact.digest,
            identity=artifact.identity,
            source=artifact.source,
        )


@dataclass
class _Stored:
    model: StoredModel
    content: bytes
    card: bytes | None
    signature: bytes | None


class FakeStore:
    """A store in memory, with the hands of the operator who fills it.

    *away* is what every question raises meanwhile; *looks* and *downloads* count what was asked of it.
    """

    kind = "local"

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.looks = 0
        self.downloads = 0
        self._stored: dict[str, _Stored] = {}
        self._changes = 0

    # The operator

    def upload(
        self,
        content: bytes,
        *,
        version: str | None = None,
        card: bytes | None = None,
        signature: bytes | None = None,
    ) -> StoredModel:
        """Place *content* under `MODEL_KEY`."""
        return self._put(version_key(LATEST), content, version, card, signature)

    def publish(self, version: str, content: bytes | None = None) -> StoredModel:
        """Place a version, whose content is its name if none is given, without making it the latest."""
        return self._put(version_key(version), content or version.encode(), version, b"{}", None)

    def promote(self, version: str) -> StoredModel:
        """Make a published version the latest."""
        return self.upload(self._stored[version_key(version)].content, version=version, card=b"{}")

    def remove(self, key: str = version_key(LATEST)) -> None:
        del self._stored[key]

    def go_away(self, reason: str = "unreachable") -> None:
        self.away = ModelStoreUnavailable(reason, "The store does not answer.")

    def come_back(self) -> None:
        self.away = None

    def _put(
        self, key: str, content: bytes, version: str | None, card: bytes | None, signature: bytes | None
    ) -> StoredModel:
        self._changes += 1
        etag = f"{digest_of(content)}-{self._changes}"
        modified = _EPOCH + timedelta(seconds=self._changes)
        model = StoredModel(key, version, etag, None, len(content), modified)
        self._stored[key] = _Stored(model, content, card, signature)
        return model

    # The store

    def location(self, model: StoredModel) -> dict[str, str | None]:
        return {"kind": self.kind, "bucket": None, "key": model.key, "version_id": model.version_id}

    def latest(self) -> StoredModel:
        self.looks += 1
        return self._find(version_key(LATEST)).model

    def find(self, version: str) -> StoredModel:
        self._answer()
        for stored in self._stored.values():
            if stored.model.version == version:
                return stored.model
        raise ModelVersionNotFound("The store has no such model version.")

    def versions(self) -> list[StoredModel]:
        self._answer()
        return [stored.model for key, stored in self._stored.items() if key != version_key(LATEST)]

    def download(self, model: StoredModel, destination: Path, *, max_bytes: int, deadline: float) -> None:
        self.downloads += 1
        stored = self._find(model.key)
        if model.size > max_bytes:
            raise ModelRejected("size", "too_large", "The file is too large.")
        if stored.model != model:
            raise ModelStoreUnavailable("replaced", "The model was replaced meanwhile.")
        destination.write_bytes(stored.content)

    def card(self, model: StoredModel) -> bytes | None:
        return self._find(model.key).card

    def signature(self, model: StoredModel) -> bytes | None:
        return self._find(model.key).signature

    def _find(self, key: str) -> _Stored:
        self._answer()
        try:
            return self._stored[key]
        except KeyError:
            raise ModelVersionNotFound("The store has no such model.") from None

    def _answer(self) -> None:
        if self.away is not None:
            raise self.away
