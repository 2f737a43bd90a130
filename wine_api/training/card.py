"""The model card: what a fitted model is, how good it is, and rows with its exact answers.

Its keys are described in docs/model_card.schema.json.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import sklearn
from sklearn.ensemble import RandomForestClassifier

from wine_api.serving.artifact import ModelCard, sha256_of
from wine_api.serving.stores.base import ARTIFACT_NAME
from wine_api.serving.wine import FEATURES, Feature
from wine_api.training.data import DataFile, Dataset

MODEL_NAME = Path(ARTIFACT_NAME).stem

_GOLDEN_ROWS = 32
# Tenths of the data, as drift is usually measured against; fewer where many wines share a value.
_HISTOGRAM_BINS = 10


def build_card(
    *,
    model: RandomForestClassifier,
    dataset: Dataset,
    metrics: Mapping[str, Any],
    artifact: Path,
    version: str,
    created_at: datetime,
) -> bytes:
    """Return the card of *model*, which lies in the file *artifact*, as JSON."""
    document = {
        "name": MODEL_NAME,
        "version": version,
        "created_at": created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "artifact": {"file": artifact.name, "sha256": sha256_of(artifact), "size": artifact.stat().st_size},
        "libraries": _libraries(),
        "estimator": " ".join(repr(model).split()),
        "features": [_describe(feature, column) for feature, column in zip(FEATURES, dataset.wines.T, strict=True)],
        "classes": model.classes_.tolist(),
        "metrics": dict(metrics),
        "golden": _golden(model, dataset),
        "training_data": [_source(file) for file in dataset.files],
    }
    text = json.dumps(document, indent=1, allow_nan=False).encode() + b"\n"
    ModelCard.parse(text)  # a card that the service would refuse must not get out of here
    return text


def _libraries() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "joblib": joblib.__version__,
    }


def _source(file: DataFile) -> dict[str, Any]:
    return {"file": file.name, "sha256": file.sha256, "rows": file.rows}


def _describe(feature: Feature, values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Say what the model saw of *feature*; all numbers but a constant's edges are values that were measured."""
    low, high = np.quantile(values, [0.01, 0.99], method="inverted_cdf")
    return {
        "name": feature.name,
        "unit": feature.unit,
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "p01": float(low),
        "p99": float(high),
        "histogram": _histogram(values),
    }


def _histogram(values: npt.NDArray[np.float64]) -> dict[str, list[float] | list[int]]:
    """Count *values* between their own quantiles: in bins of equal width, most wines would share two or three.

    As with `numpy.histogram`, a bin includes its lower edge, and the last one both.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _HISTOGRAM_BINS + 1), method="inverted_cdf"))
    counts, edges = np.histogram(values, bins=edges if len(edges) > 1 else 1)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _golden(model: RandomForestClassifier, dataset: Dataset) -> dict[str, Any]:
    """Return some wines with the exact answers of *model*: JSON keeps every bit of a Python float."""
    inputs = dataset.wines[_golden_rows(dataset)]
    return {
        "inputs": inputs.tolist(),
        "predictions": model.predict(inputs).tolist(),
        "probabilities": model.predict_proba(inputs).tolist(),
    }


def _golden_rows(dataset: Dataset) -> list[int]:
    """Choose wines that walk far apart through the trees: one of each quality, the extremes, some from all over."""
    _, one_of_each = np.unique(dataset.qualities, return_index=True)
    candidates = np.concatenate(
        [
            one_of_each,
            dataset.wines.argmin(axis=0),
            dataset.wines.argmax(axis=0),
            np.linspace(0, len(dataset.wines) - 1, _GOLDEN_ROWS, dtype=np.intp),
        ]
    )
    return list(dict.fromkeys(candidates.tolist()))[:_GOLDEN_ROWS]
