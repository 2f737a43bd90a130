"""A model file and its card: what it is, where it came from, and what it promises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from wine_api.errors import ModelRejected
from wine_api.serving.wine import Label, Matrix

VERSION_FROM_DIGEST_DIGITS = 12


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file at *path*, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class TrainingRange:
    """What the model saw of one feature in training, in the feature's unit."""

    name: str
    minimum: float
    maximum: float


class Bounds:
    """What a model saw of all features in training, ready to be compared with wines."""

    def __init__(self, ranges: Sequence[TrainingRange]) -> None:
        """Take one range a feature, in the order of FEATURES."""
        self.lows = np.array([known.minimum for known in ranges])
        self.highs = np.array([known.maximum for known in ranges])

    def outside(self, wines: Matrix) -> list[tuple[int, int]]:
        """Return the row and the column of each value in *wines*, shape (rows, 11), that lies outside."""
        beyond = (wines < self.lows) | (wines > self.highs)
        if not beyond.any():
            return []
        return [(row, column) for row, column in np.argwhere(beyond).tolist()]


@dataclass(frozen=True, slots=True)
class GoldenRows:
    """Inputs with the exact answers that the model gave where it was trained.

    *inputs* has shape (rows, 11), in the order of FEATURES. *probabilities* has shape (rows, classes), or is None for
    a model without them.
    """

    inputs: list[list[float]]
    predictions: list[Label]
    probabilities: list[list[float]] | None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the trainer says of an artifact. Its keys are described in docs/model_card.schema.json."""

    version: str
    sha256: str
    size: int
    libraries: Mapping[str, str]
    ranges: tuple[TrainingRange, ...]
    bounds: Bounds
    classes: tuple[Label, ...] | None
    metrics: Mapping[str, Any]
    golden: GoldenRows
    document: Mapping[str, Any]

    @classmethod
    def parse(cls, text: bytes) -> ModelCard:
        """Read a card from its JSON *text*.

        Raises `ModelRejected` (gate `card`) when it is not JSON or breaks the schema.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ModelRejected("card", "invalid_card", "The model card is not valid JSON.") from error
        complaint = next(iter(_validator().iter_errors(document)), None)
        if complaint is not None:
            raise ModelRejected("card", "invalid_card", f"The model card breaks its schema at {complaint.json_path}.")
        ranges = tuple(
            TrainingRange(feature["name"], float(feature["minimum"]), float(feature["maximum"]))
            for feature in document["features"]
        )
        return cls(
            version=document["version"],
            sha256=document["artifact"]["sha256"],
            size=document["artifact"]["size"],
            libraries=document["libraries"],
            ranges=ranges,
            bounds=Bounds(ranges),
            classes=None if document["classes"] is None else tuple(document["classes"]),
            metrics=document["metrics"],
            golden=GoldenRows(
                inputs=document["golden"]["inputs"],
                predictions=document["golden"]["predictions"],
                probabilities=document["golden"]["probabilities"],
            ),
            document=document,
        )


@cache
def _validator() -> Any:
    # Imported here, as only a store with cards needs it, and it is slow to import.
    from jsonschema import Draft202012Validator

    schema = json.loads(resources.files("wine_api.serving").joinpath("model_card.schema.json").read_text())
    return Draft202012Validator(schema)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file that lies on this host's disk, with what is known about it.

    *source* says where it came from, as `GET /model` shows it; *identity* is the store's (see `StoredModel`).
    *card_text* and *signature* are the bytes that came with it, unchecked; None for a plain upload.
    """

    path: Path
    version: str
    digest: str
    size: int
    source: Mapping[str, str | None]
    card_text: bytes | None
    signature: bytes | None
    identity: str
