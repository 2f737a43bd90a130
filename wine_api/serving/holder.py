"""The model in use in this worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from wine_api.errors import ModelNotLoaded
from wine_api.serving.artifact import ModelCard
from wine_api.serving.engines.base import Engine
from wine_api.serving.wine import Label

CHAMPION = "champion"
_RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that passed every gate and is ready to answer.

    *identity* is the store's (see `StoredModel`). *classes* is None for a regressor. *library_mismatch* maps a
    library to the version that wrote the model, where another one serves it. *engine_reason* says why scikit-learn
    itself answers; None where a faster engine does. *load_ms* is how long the load took.
    """

    version: str
    digest: str
    identity: str
    source: Mapping[str, str | None]
    card: ModelCard | None
    engine: Engine
    engine_reason: str | None
    classes: tuple[Label, ...] | None
    library_mismatch: Mapping[str, str]
    loaded_at: datetime
    load_ms: float


class ModelHolder:
    """The models in use, by name; today there is one, the champion.

    A swap is one reference: a request sees the old model or the new one, whole.
    """

    def __init__(self) -> None:
        self._models: dict[str, LoadedModel] = {}

    def current(self, name: str = CHAMPION) -> LoadedModel | None:
        """Return the model called *name*, or None before there is one."""
        return self._models.get(name)

    def require(self, name: str = CHAMPION) -> LoadedModel:
        """Return the model called *name*, or raise `ModelNotLoaded`."""
        model = self._models.get(name)
        if model is None:
            raise ModelNotLoaded("No model has been loaded yet. Try again in a moment.", retry_after=_RETRY_SECONDS)
        return model

    def swap(self, model: LoadedModel, name: str = CHAMPION) -> None:
        """Answer with *model* from the next request on."""
        self._models[name] = model
