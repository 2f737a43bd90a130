"""Made-up bodies against the reader of requests: it refuses or understands each, and agrees with a second reader.

    python -m fuzz.bodies [--count 100000] [--seed 0]

Prints the first body that makes it crash, or that two readers understand differently, and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import Any

import numpy as np
from flask import Flask

from fuzz.mutations import mutated
from wine_api.api.examples import RED, WHITE
from wine_api.api.json import StrictJSONProvider
from wine_api.errors import InvalidRequest, WineError
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest
from wine_api.serving.wine import FEATURE_NAMES

BY_NAME = dict(zip(FEATURE_NAMES, RED, strict=True))
SEEDS = [
    json.dumps(document).encode()
    for document in (
        {"features": RED},
        {"features": BY_NAME},
        {"wine_features": BY_NAME},
        {"wine_features": {"Fixed Acidity": 7, **BY_NAME}},
        {"features_list": [RED, WHITE, BY_NAME]},
        {"wine_features_list": [BY_NAME, BY_NAME]},
        {"features": [-0.0, 1e308, 5e-324, 1e-7, 2**53, 2**63, 2**64, 14, 14.0, 100, 0]},
        {"version": "1.0"},
    )
]
WORDS = [
    *(b'null true false NaN Infinity -Infinity -0 1e400 -1 0.1e1 01 1. .5 +1 1e 0x1 [] {} "" \\u0000'.split()),
    *(b'"features": "wine_features": "pH": "ph" \xff\xfe \xef\xbb\xbf \xed\xa0\x80 \\ud800 \\" \\ /**/ ,'.split()),
    *(b"[" * 20, b"]" * 20, b'{"a":' * 20, b"9" * 5000, b" " * 100, b"\x00", b"\n", b'"' + b"a" * 300 + b'"'),
]
READER = StrictJSONProvider(Flask("fuzz"))
SCHEMAS = (PredictRequest(), PredictBatchRequest())


def read(body: bytes) -> Any:
    """Return what the service understands, or None if it refuses."""
    try:
        return READER.loads(body)
    except WineError as refusal:
        if refusal.status != 400:
            raise
        return None


def check(body: bytes) -> bool:
    """Raise if something is wrong with how *body* is read; return whether any schema takes it."""
    document = read(body)
    if document is not None and document != json.loads(body):
        raise AssertionError("two readers of JSON differ")
    taken = False
    for schema in SCHEMAS:
        try:
            wines = schema.load(document)
        except InvalidRequest:
            continue
        taken = True
        if not (
            isinstance(wines, np.ndarray) and wines.ndim == 2 and wines.shape[1] == 11 and np.isfinite(wines).all()
        ):
            raise AssertionError("what a schema takes is not a table of finite numbers")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, taken, began = random.Random(arguments.seed), 0, time.perf_counter()
    for number in range(arguments.count):
        body = mutated(chance, SEEDS, WORDS)
        try:
            taken += check(body)
        except Exception as error:
            sys.exit(f"body {number} of seed {arguments.seed}: {type(error).__name__}: {error}\n{body!r}")
    print(f"{arguments.count} bodies in {time.perf_counter() - began:.0f} s, {taken} of them valid: nothing wrong")


if __name__ == "__main__":
    main()
