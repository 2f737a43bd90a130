"""Measures what reloads cost: how long they take, what requests feel of them, and whether memory grows.

    python -m benchmarks.reloads                                # a minute, with a reload every 5 s
    python -m benchmarks.reloads --seconds 1800 --reloads 200   # the long run

Eight connections predict without a pause while two versions of the forest of 100 trees on both tables take turns.
Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
from sklearn.ensemble import RandomForestClassifier

from benchmarks import machine, processes, wrk
from benchmarks.processes import Server
from benchmarks.wines import add_data_option, both_tables, perturbed

CONNECTIONS = 8
VERSIONS = ("1.0", "2.0")
CALM_SECONDS = 10.0


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        found = _measure(Path(folder), options)
    print(json.dumps(found, indent=1))
    machine.write(options.out, **found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what reloads cost.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--reloads", type=int, default=12)
    parser.add_argument("--out", type=Path, default=machine.result_path("reloads"))
    add_data_option(parser)
    return parser.parse_args()


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    store, bodies = folder / "store", folder / "bodies"
    body = _prepare(store, bodies, options.data)
    environment = {
        "MODEL_DIR": str(store),
        "STATE_DIR": str(folder / "state"),
        "MODEL_CACHE_DIR": str(folder / "cache"),
        "WEB_CONCURRENCY": "2",
    }
    arguments = ["--config", "gunicorn.conf.py", "wsgi:app"]
    with processes.running(arguments, environment, body) as server, ThreadPoolExecutor(1) as beside:
        for version in VERSIONS:  # each is tried once, in a process of its own
            _reload(server, store, version)
        calm = wrk.run(server.address, "/predict", bodies, connections=CONNECTIONS, seconds=CALM_SECONDS)
        load = beside.submit(
            wrk.run, server.address, "/predict", bodies, connections=CONNECTIONS, seconds=options.seconds
        )
        seconds, memory = _reload_meanwhile(server, store, options)
        busy = load.result()
    settled, grown = memory[len(memory) // 10], memory[-1]
    return {
        "reloads": len(seconds),
        "reload_seconds": {"median": statistics.median(seconds), "slowest": max(seconds)},
        "calm": asdict(calm),
        "with_reloads": asdict(busy),
        "p99_times_calm": busy.p99_ms / calm.p99_ms,
        "pss_mib": [round(bytes_ / 2**20, 1) for bytes_ in memory],
        "pss_growth_after_a_tenth": grown / settled - 1,
    }


def _prepare(store: Path, bodies: Path, data: Path) -> bytes:
    wines, qualities = both_tables(data)
    for seed, version in enumerate(VERSIONS):
        artifact = store / "models" / version / "wine_quality_model.joblib"
        artifact.parent.mkdir(parents=True)
        joblib.dump(RandomForestClassifier(100, random_state=seed).fit(wines, qualities), artifact)
    (store / "models" / "latest").mkdir()
    _promote(store, VERSIONS[0])
    documents = [json.dumps({"features": row.tolist()}) for row in perturbed(wines, 2000).round(4)]
    bodies.write_text("".join(f"{document}\n" for document in documents))
    return documents[0].encode()


def _promote(store: Path, version: str) -> None:
    arriving = store / "models" / "latest" / ".arriving"
    shutil.copy(store / "models" / version / "wine_quality_model.joblib", arriving)
    os.replace(arriving, arriving.with_name("wine_quality_model.joblib"))


def _reload_meanwhile(server: Server, store: Path, options: argparse.Namespace) -> tuple[list[float], list[int]]:
    """Return what each reload took, and the memory of all processes after each."""
    pause = options.seconds / (options.reloads + 1)
    seconds, memory, due = [], [], time.monotonic()
    for number in range(options.reloads):
        due += pause
        time.sleep(max(0.0, due - time.monotonic()))
        seconds.append(_reload(server, store, VERSIONS[number % 2]))
        memory.append(server.pss_bytes())
    return seconds, memory


def _reload(server: Server, store: Path, version: str) -> float:
    _promote(store, version)
    started = time.perf_counter()
    status, answer = processes.ask(server, "/model/reload", b"{}")
    taken = time.perf_counter() - started
    if status != 200:
        raise RuntimeError(f"the reload was answered with {status}: {answer!r}")
    return taken


if __name__ == "__main__":
    main()
