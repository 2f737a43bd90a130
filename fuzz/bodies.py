"""Made-up bodies against the readers of requests: they refuse or understand each, and agree with each other.

Python's own reader of JSON has to find the same document, and the short way for plain predictions the same numbers as
the schemas, bit by bit.

    python -m fuzz.bodies [--count 100000] [--seed 0]

Prints the first body that makes it crash, or that two readers understand differently, and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Flask

from fuzz.mutations import mutated
from wine_api.api.examples import RED, WHITE
from wine_api.api.json import StrictJSONProvider
from wine_api.errors import InvalidRequest, WineError
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest
from wine_api.schemas.well_formed import read_wine, read_wines
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
MOST_ROWS = 1000
WAYS = ((PredictRequest(), read_wine), (PredictBatchRequest(), lambda body: read_wines(body, MOST_ROWS)))


def read(body: bytes) -> Any:
    """Return what the service understands, or None if it refuses."""
    try:
        return READER.loads(body)
    except WineError as refusal:
        if refusal.status != 400:
            raise
        return None


@dataclass
class Verdict:
    """What became of a body."""

    taken: bool = False
    shortly: bool = False


def check(body: bytes) -> Verdict:
    """Raise if something is wrong with how *body* is read; return whether any schema, and any short way, takes it."""
    document = read(body)
    if document is not None and document != json.loads(body):
        raise AssertionError("two readers of JSON differ")
    verdict = Verdict()
    for schema, read_shortly in WAYS:
        wines = read_shortly(body)
        try:
            loaded = schema.load(document)
        except InvalidRequest as refusal:
            if wines is not None:
                raise AssertionError("the short way takes what the schema refuses") from refusal
            continue
        verdict.taken = True
        if not (is_table(loaded) and loaded.shape[1] == len(FEATURE_NAMES) and np.isfinite(loaded).all()):
            raise AssertionError("what a schema takes is not a table of finite numbers")
        if wines is not None:
            verdict.shortly = True
            if not (is_table(wines) and wines.shape == loaded.shape and wines.tobytes() == loaded.tobytes()):
                raise AssertionError("the short way reads other numbers than the schema")
    return verdict


def is_table(wines: Any) -> bool:
    return isinstance(wines, np.ndarray) and wines.ndim == 2 and wines.dtype == np.float64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, taken, shortly, began = random.Random(arguments.seed), 0, 0, time.perf_counter()
    for number in range(arguments.count):
        body = mutated(chance, SEEDS, WORDS)
        try:
            verdict = check(body)
        except Exception as error:
            sys.exit(f"body {number} of seed {arguments.seed}: {type(error).__name__}: {error}\n{body!r}")
        taken += verdict.taken
        shortly += verdict.shortly
    seconds = time.perf_counter() - began
    print(f"{arguments.count} bodies in {seconds:.0f} s, {taken} valid, {shortly} by the short way: nothing wrong")


if __name__ == "__main__":
    main()
