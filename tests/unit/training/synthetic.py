"""Wines that nobody made: enough like the real tables to train on in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wine_api.serving.wine import FEATURES
from wine_api.training.data import DataFile, Dataset

ROWS = 240
REPEATED = 40

UCI_HEADER = (
    '"fixed acidity";"volatile acidity";"citric acid";"residual sugar";"chlorides";"free sulfur dioxide";'
    '"total sulfur dioxide";"density";"pH";"sulphates";"alcohol";"quality"'
)
ONE_WINE = "7.4;0.7;0;1.9;0.076;11;34;0.9978;3.51;0.56;9.4;5"
ANOTHER_WINE = "7.8;0.88;0;2.6;0.098;25;67;0.9968;3.2;0.68;9.8;6"


def synthetic_dataset() -> Dataset:
    """Return wines in whose alcohol the quality (4 to 7) can be seen.

    The last ones repeat the first, and some of them with another quality: only such a wine is given a probability that
    is not a count of trees, and so has many digits.
    """
    random = np.random.default_rng(7)
    examples = np.array([feature.example or 0.3 for feature in FEATURES])
    distinct = np.round(examples * random.uniform(0.8, 1.2, (ROWS - REPEATED, len(FEATURES))), 4)
    wines = np.concatenate([distinct, distinct[:REPEATED]])
    qualities = np.digitize(wines[:, -1], [8.3, 9.4, 10.5]) + 4
    qualities[-REPEATED::4] = 11 - qualities[-REPEATED::4]
    return Dataset(wines, qualities.astype(np.int64), (DataFile("synthetic.csv", "0" * 64, ROWS),))


def write_table(path: Path, *lines: str) -> Path:
    """Write the UCI header and *lines* to *path*."""
    path.write_text("\n".join([UCI_HEADER, *lines]) + "\n")
    return path


def write_synthetic_table(path: Path) -> Path:
    """Write the synthetic wines to *path*."""
    dataset = synthetic_dataset()
    rows = zip(dataset.wines.tolist(), dataset.qualities.tolist(), strict=True)
    return write_table(path, *(";".join(map(repr, [*wine, quality])) for wine, quality in rows))
