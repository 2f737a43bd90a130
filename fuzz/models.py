"""Made-up model files against the restricted loader: it refuses each, or loads it, and never does anything else.

    python -m fuzz.models [--count 2000] [--seed 0]

Prints the first file that makes it fail in another way, and exits with 1; a file that ends the process is found by its
number, as each is announced in `--trace`.
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fuzz.mutations import mutated
from wine_api.errors import ModelRejected
from wine_api.serving.unpickling import load

MOST_BYTES = 4 * 1024 * 1024
WORDS = [
    *(b"cos\nsystem\n cbuiltins\neval\n \x93 R \x81 b 0 . ( t ) ] } \x94 \x85 \x86 \x87 N I01\n".split(b" ")),
    *(b"sklearn.tree._tree numpy.dtype joblib.numpy_pickle __reduce__ __setstate__ posix system".split()),
    b"\xff\xff\xff\xff",
    b"\x00" * 8,
    b"\x7f" * 8,
]


def seeds() -> list[bytes]:
    wines = np.random.default_rng(0).random((40, 11))
    labels = np.arange(40) % 3
    models = [
        make_pipeline(StandardScaler(), LogisticRegression()).fit(wines, labels),
        DecisionTreeClassifier(max_depth=3).fit(wines, labels),
        {"model": LogisticRegression().fit(wines, labels), "scaler": None},
    ]
    written = []
    for model in models:
        file = io.BytesIO()
        joblib.dump(model, file)
        written += [file.getvalue(), pickle.dumps(model)]
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    chance, honest, loaded, began = random.Random(arguments.seed), seeds(), 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        for number in range(arguments.count):
            path.write_bytes(mutated(chance, honest, WORDS))
            if arguments.trace:
                print(number, flush=True)
            try:
                load(path, max_bytes=MOST_BYTES)
                loaded += 1
            except ModelRejected:
                continue
            except Exception as error:
                sys.exit(f"file {number} of seed {arguments.seed}: {type(error).__name__}: {error}")
    print(f"{arguments.count} files in {time.perf_counter() - began:.0f} s, {loaded} of them loaded: nothing wrong")


if __name__ == "__main__":
    main()
