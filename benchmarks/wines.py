"""The wines that the benchmarks ask about."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from wine_api.training.data import read_dataset

_DATA = os.environ.get("WINE_DATA") or Path(__file__).parents[2] / "shared" / "data"


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Let the caller say where the tables are."""
    parser.add_argument(
        "--data",
        type=Path,
        default=_DATA,
        help="the folder of winequality-red.csv and winequality-white.csv (default: WINE_DATA)",
    )


def both_tables(folder: Path) -> tuple[Any, Any]:
    """Return all wines, shape (rows, 11), and their qualities, shape (rows,)."""
    dataset = read_dataset([folder / "winequality-red.csv", folder / "winequality-white.csv"])
    return dataset.wines, dataset.qualities


def perturbed(wines: Any, count: int) -> Any:
    """Return *count* wines like *wines* of which no two are equal."""
    random = np.random.default_rng(0)
    drawn = wines[random.integers(len(wines), size=count)]
    return np.abs(drawn + random.normal(scale=0.05 * wines.std(axis=0), size=drawn.shape))
