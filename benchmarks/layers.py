"""Measures the layers of one request in one process, with no network: what each costs, in microseconds of CPU.

    python -m benchmarks.layers

The best and the median of many small batches; other work on the machine disturbs the best least.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FOLDER = tempfile.TemporaryDirectory()
os.environ["STATE_DIR"] = f"{_FOLDER.name}/state"
os.environ["MODEL_CACHE_DIR"] = f"{_FOLDER.name}/cache"
os.environ["WEB_CONCURRENCY"] = "2"

from wine_api import native_threads, worker  # noqa: E402

native_threads.limit()
_SETTINGS = worker.read_settings()  # before the first metric, as in Gunicorn

from benchmarks import machine  # noqa: E402
from benchmarks.floors import flask_hello  # noqa: E402
from wine_api import metrics  # noqa: E402
from wine_api.api.json import parse  # noqa: E402
from wine_api.app import create_app  # noqa: E402
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest  # noqa: E402
from wine_api.schemas.well_formed import read_wine, read_wines  # noqa: E402
from wine_api.services import services_of  # noqa: E402
from wine_api.serving.wine import FEATURES  # noqa: E402

WINE = [feature.example for feature in FEATURES]
ONE = json.dumps({"features": WINE}).encode()
MANY = json.dumps({"features_list": [WINE] * 1000}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the layers of one request.")
    parser.add_argument("--out", type=Path, default=machine.result_path("layers"))
    out = parser.parse_args().out
    app = create_app(_SETTINGS)
    services = services_of(app)
    services.fleet.begin_run(1)
    metrics.use_slot(services.fleet.join())
    with _quiet():
        services.rollout.take_first()
        layers = _layers(app, services)
        found = {name: _measure(layer, *(few if "1000" in name else many)) for name, layer in layers.items()}
    for name, (best, median) in found.items():
        print(f"{name:44s} best {best:8.1f} us   median {median:8.1f} us")
    machine.write(out, layers={name: {"best_us": best, "median_us": median} for name, (best, median) in found.items()})


few, many = (1, 50), (12, 400)


def _layers(app: Any, services: Any) -> dict[str, Callable[[], object]]:
    one, rows = read_wine(ONE), read_wines(MANY, 1000)
    engine = services.holder.require().engine
    schema, batch_schema = PredictRequest(), PredictBatchRequest()
    return {
        "Flask hello, whole": lambda: _call(flask_hello.app, "POST", "/predict", ONE),
        "GET /health/live, whole": lambda: _call(app, "GET", "/health/live", b""),
        "POST /predict, whole": lambda: _call(app, "POST", "/predict", ONE),
        "- read: what is beyond doubt": lambda: read_wine(ONE),
        "- read: by the schema": lambda: schema.load(parse(ONE)),
        "- engine": lambda: engine.predict(one),
        "- engine, counted, with ranges": lambda: services.predictions.predict(one),
        "POST /predict/batch of 1000, whole": lambda: _call(app, "POST", "/predict/batch", MANY),
        "- read 1000: what is beyond doubt": lambda: read_wines(MANY, 1000),
        "- read 1000: by the schema": lambda: batch_schema.load(parse(MANY)),
        "- engine, 1000": lambda: engine.predict(rows),
        "- engine, 1000, counted, with ranges": lambda: services.predictions.predict(rows),
    }


def _call(app: Any, method: str, path: str, body: bytes) -> bytes:
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "RAW_URI": path,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
    }
    answer = app.wsgi_app(environ, lambda status, headers, error=None: None)
    try:
        return b"".join(answer)
    finally:
        answer.close()


def _measure(layer: Callable[[], object], calls: int, batches: int) -> tuple[float, float]:
    """Return the best and the median of *batches* of *calls*, in microseconds a call."""
    taken = []
    for _ in range(batches):
        started = time.thread_time_ns()
        for _ in range(calls):
            layer()
        taken.append((time.thread_time_ns() - started) / calls / 1000)
    taken.sort()
    return taken[0], taken[len(taken) // 2]


@contextmanager
def _quiet() -> Any:
    """Write the log lines to nowhere, but write them."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


if __name__ == "__main__":
    main()
