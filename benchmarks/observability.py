"""Measures what a prediction pays for being seen: its metrics and its log line.

    python -m benchmarks.observability
    python -m benchmarks.observability --sink blocked

The application answers `POST /predict` twice over, whole and without metrics and log line; the two take turns, so that
other work on the machine disturbs both alike. A stand-in answers for the model. Metrics are counted in files and lines
go through a pipe, as in production. The numbers are CPU time of the whole process, the thread that writes lines
included: the least of many small batches of each, and the median of their differences.

*sink* is who reads the lines: a process that takes them all, or nobody (`blocked`: the pipe is full).
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine

BATCH = 50
WINE = [7.4, 0.7, 0.0, 1.9, 0.076, 11.0, 34.0, 0.9978, 3.51, 0.56, 9.4]
BODY = json.dumps({"features": WINE}).encode()


class Silence:
    """Metrics that count nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class Constant:
    """An engine that has its answer ready."""

    name = "constant"

    def __init__(self, answers: Any) -> None:
        self._answers = answers

    def predict(self, wines: Any) -> Any:
        return self._answers


def main() -> None:
    arguments = parse_arguments()
    report = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as folder, sink(arguments.sink) as descriptor:
        os.dup2(descriptor, 1)
        whole, unseen = applications(Path(folder), flush=arguments.sink == "read")
        seen_seconds, unseen_seconds = measure(whole, unseen, arguments.batches)
    found = microseconds(seen_seconds, unseen_seconds)
    for name, value in found.items():
        print(f"{name:30}{value:8.1f} µs", file=report)
    report.flush()
    if arguments.output is not None:
        machine.write(arguments.output, sink=arguments.sink, batches=arguments.batches, cpu_us=found)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sink", choices=("read", "blocked"), default="read")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--output", type=Path, help="where to write the numbers, as JSON")
    return parser.parse_args()


def microseconds(seen: list[float], unseen: list[float]) -> dict[str, float]:
    """Return what was measured, in microseconds of processor time a request."""
    pairs = [one - other for one, other in zip(seen, unseen, strict=True)]
    found = {
        "whole request": min(seen),
        "neither counted nor logged": min(unseen),
        "metrics and log line, least": min(seen) - min(unseen),
        "metrics and log line, median": statistics.median(pairs),
    }
    return {name: round(1e6 * value, 1) for name, value in found.items()}


class sink:  # noqa: N801  # used as a function
    """A pipe that is read, or full."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> int:
        if self._kind == "read":
            self._reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert self._reader.stdin is not None
            return self._reader.stdin.fileno()
        self._unread, full = os.pipe()
        os.set_blocking(full, False)
        try:
            while True:
                os.write(full, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(full, True)
        return full

    def __exit__(self, *_: object) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def applications(folder: Path, *, flush: bool) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return two ways to answer a prediction, seen and unseen, as functions that take a batch of them."""
    from wine_api import metrics

    counts = folder / "counts"
    counts.mkdir()
    metrics.count_in_files(counts)
    metrics.use_slot(0)
    from wine_api.app import create_app
    from wine_api.config import Settings
    from wine_api.observability import logs
    from wine_api.services import services_of

    settings = Settings(state_dir=folder / "state", model_cache_dir=folder / "cache")
    whole, unseen = create_app(settings), create_app(settings)
    logs.configure("INFO")
    logs.begin_worker(services_of(whole).metrics.log_lines_dropped.inc)
    for app in (whole, unseen):
        services = services_of(app)
        if app is whole:
            services.fleet.begin_run(1)
            services.fleet.join()
        services.rollout.take_first()
        model = services.holder.require()
        services.holder.swap(replace(model, engine=Constant(model.engine.predict(np.array([WINE])))))
    services_of(unseen).predictions._metrics = Silence()
    return caller(observer_of(whole), flush=flush), caller(without(observer_of(unseen)), flush=flush)


def observer_of(app: Any) -> Any:
    """Return the middleware that sees the requests of *app*, under the one for proxies."""
    from wine_api.observability.requests import RequestObserver

    found = app.wsgi_app
    while not isinstance(found, RequestObserver):
        found = found._application
    return found


def without(observer: Any) -> Any:
    """Return the application of *observer*, which only gets what it needs to answer."""
    from wine_api.observability import requests

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        requests._begin(environ)
        return observer._application(environ, start_response)

    return application


def caller(application: Any, *, flush: bool) -> Callable[[], float]:
    from werkzeug.test import EnvironBuilder

    template = EnvironBuilder(path="/predict", method="POST", data=BODY, content_type="application/json").get_environ()

    def call() -> None:
        body = application({**template, "wsgi.input": io.BytesIO(BODY)}, lambda status, headers, error=None: None)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    def batch() -> float:
        began = time.process_time()
        for _ in range(BATCH):
            call()
        if flush:
            logging.getLogger().handlers[0].flush()  # the thread that writes is paid for too
        return (time.process_time() - began) / BATCH

    return batch


def measure(whole: Callable[[], float], unseen: Callable[[], float], batches: int) -> tuple[list[float], list[float]]:
    """Return the seconds a request of each, batch by batch."""
    gc.disable()
    for way in (whole, unseen):
        way()
    measured = [(whole(), unseen()) for _ in range(batches)]
    return [seen for seen, _ in measured], [other for _, other in measured]


if __name__ == "__main__":
    sys.exit(main())
