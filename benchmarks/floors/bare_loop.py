"""The bare loop over the trees in a process: how many rows a second it makes of batches of 1000, with no server at all.

    python -m benchmarks.floors.bare_loop model.joblib wines.npy SECONDS

Prints rows a second. Run as many at once as there are workers.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import joblib
import numpy as np

ROWS = 1000


def loop(forest: Any) -> Any:
    """Return what adds up the probabilities of the trees of *forest*, row by row equal to its `predict_proba`."""
    predicts = [tree.tree_.predict for tree in forest.estimators_]

    def probabilities(rows: Any) -> Any:
        single = rows.astype(np.float32)
        total = np.zeros((len(rows), len(forest.classes_)))
        for predict in predicts:
            total += predict(single)
        total /= len(predicts)
        return total

    return probabilities


def main() -> None:
    path, wines, seconds = sys.argv[1], np.load(sys.argv[2]), float(sys.argv[3])
    compute = loop(joblib.load(path))
    batches = [wines[start : start + ROWS] for start in range(0, len(wines) - ROWS, ROWS)]
    done, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        compute(batches[(done // ROWS) % len(batches)])
        done += ROWS
    print(done / passed)


if __name__ == "__main__":
    main()
