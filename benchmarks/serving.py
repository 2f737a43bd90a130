"""Measures the whole service under load, against floors, with the forest of 100 trees on both tables.

    python -m benchmarks.serving                 # some ten minutes
    python -m benchmarks.serving --rounds 1 --seconds 2

All servers run at once, and are loaded one after the other in rounds, so that other work on the machine falls on all of
them alike. Ratios are of the medians over the rounds. CPU is what the processes of the server computed, by request.
Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from benchmarks import machine, plot, processes, wrk
from benchmarks.processes import Server
from benchmarks.wines import add_data_option, both_tables, perturbed

SERVICE, BARE, HELLO, SKLEARN = "service", "bare_wsgi", "flask_hello", "flask_sklearn"
CONNECTIONS = (1, 8, 32)
BATCHES = (1, 10, 100, 1000, 10000)
BATCH_CONNECTIONS = 4
BODIES = 2000
WORKERS = 2
IMPORTS = "import sklearn.ensemble, flask, boto3"


@dataclass(frozen=True)
class Measured:
    """One run of one server."""

    server: str
    rows: int
    connections: int
    round: int
    per_second: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    failed: int
    cpu_us: float


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder, _prepared(Path(folder), options) as prepared:
        starts = _starts(prepared)
        with _all_running(prepared) as servers:
            memory = {name: server.pss_of_each() for name, server in servers.items()}
            print(_memory_line(memory))
            singles = _measure_singles(servers, prepared, options)
            batches = _measure_batches(servers, prepared, options)
        loop = _measure_loop(prepared, options.seconds)
    summary = _summary(singles, batches, loop, memory, starts)
    print(json.dumps(summary, indent=1))
    machine.write(
        options.out, summary=summary, loop_rows_per_second=loop, runs=[asdict(run) for run in (*singles, *batches)]
    )
    plot.draw(options.out.with_suffix(".svg"), singles=singles, batches=batches, loop=statistics.median(loop))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the service under load.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--out", type=Path, default=machine.result_path("serving"))
    add_data_option(parser)
    return parser.parse_args()


# What is measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The folder with the model and the bodies, and how each server is started."""

    folder: Path
    body: bytes

    @property
    def model(self) -> Path:
        return self.folder / "models" / "latest" / "wine_quality_model.joblib"

    def bodies(self, rows: int) -> Path:
        return self.folder / f"bodies-{rows}"

    def start(self, name: str, workers: int = WORKERS) -> tuple[list[str], dict[str, str]]:
        """Return the arguments of Gunicorn, and the environment."""
        if name == SERVICE:
            state = {"STATE_DIR": str(self.folder / f"state-{workers}"), "MODEL_CACHE_DIR": str(self.folder / "cache")}
            environment = {"MODEL_DIR": str(self.folder), "WEB_CONCURRENCY": str(workers), **state}
            return ["--config", "gunicorn.conf.py", "wsgi:app"], environment
        config = ["--config", "benchmarks/floors/settings.py"]
        return [*config, f"benchmarks.floors.{name}:app"], {"MODEL": str(self.model), "OMP_NUM_THREADS": "1"}


@contextmanager
def _prepared(folder: Path, options: argparse.Namespace) -> Iterator[Prepared]:
    wines, qualities = both_tables(options.data)
    forest = RandomForestClassifier(100, random_state=0).fit(wines, qualities)
    asked = perturbed(wines, 20_000).round(4)
    prepared = Prepared(folder, json.dumps({"features": asked[0].tolist()}).encode())
    prepared.model.parent.mkdir(parents=True)
    joblib.dump(forest, prepared.model)
    np.save(folder / "wines.npy", asked)
    _write_bodies(prepared.bodies(0), [{"features": row.tolist()} for row in asked[:BODIES]])
    for rows in BATCHES:
        starts = range(0, min(len(asked), BODIES * rows) - rows + 1, rows)
        _write_bodies(
            prepared.bodies(rows), [{"features_list": asked[start : start + rows].tolist()} for start in starts]
        )
    yield prepared


def _write_bodies(path: Path, documents: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))


@contextmanager
def _all_running(prepared: Prepared) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(processes.running(*prepared.start(name), prepared.body))
            for name in (SERVICE, BARE, HELLO, SKLEARN)
        }


# Measuring -----------------------------------------------------------------------------------------------------------


def _measure_singles(servers: dict[str, Server], prepared: Prepared, options: argparse.Namespace) -> list[Measured]:
    return [
        _measure(name, server, prepared, 0, connections, number, options.seconds)
        for number in range(options.rounds)
        for connections in CONNECTIONS
        for name, server in servers.items()
    ]


def _measure_batches(servers: dict[str, Server], prepared: Prepared, options: argparse.Namespace) -> list[Measured]:
    return [
        _measure(SERVICE, servers[SERVICE], prepared, rows, BATCH_CONNECTIONS, number, options.seconds)
        for number in range(options.rounds)
        for rows in BATCHES
    ]


def _measure(
    name: str, server: Server, prepared: Prepared, rows: int, connections: int, number: int, seconds: float
) -> Measured:
    path = "/predict/batch" if rows else "/predict"
    before = server.cpu_seconds()
    load = wrk.run(server.address, path, prepared.bodies(rows), connections=connections, seconds=seconds)
    cpu_us = 1e6 * (server.cpu_seconds() - before) / max(1, load.requests)
    measured = Measured(
        name, rows, connections, number, load.per_second, load.p50_ms, load.p99_ms, load.slowest_ms, load.failed, cpu_us
    )
    print(
        f"{name:14s} rows {rows:5d}  connections {connections:2d}  {load.per_second:9.1f}/s  p50 {load.p50_ms:8.2f} ms"
        f"  p99 {load.p99_ms:8.2f} ms  failed {load.failed}  CPU {cpu_us:9.1f} us",
        flush=True,
    )
    return measured


def _measure_loop(prepared: Prepared, seconds: float) -> list[float]:
    """Return the rows a second of two processes that do nothing but walk down the trees."""
    command = [sys.executable, "-m", "benchmarks.floors.bare_loop", str(prepared.model)]
    loops = [
        subprocess.Popen(
            [*command, str(prepared.folder / "wines.npy"), str(seconds)],
            cwd=processes.ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        for _ in range(WORKERS)
    ]
    return [sum(float(loop.communicate()[0]) for loop in loops)]


def _starts(prepared: Prepared) -> dict[str, float]:
    """Return the seconds to the first prediction, with a model that was vetted before, and those of the imports."""
    start = prepared.start(SERVICE)
    processes.first_answer_seconds(*start, prepared.body)
    imports, answers = [], []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imports.append(os.times().elapsed - before.elapsed)
        answers.append(processes.first_answer_seconds(*start, prepared.body))
    found = {"imports": statistics.median(imports), "first_answer": statistics.median(answers)}
    with processes.running(*prepared.start(SERVICE, workers=1), prepared.body) as one:
        found["pss_mib_with_1_worker"] = one.pss_bytes() / 2**20
    with processes.running(*prepared.start(SERVICE, workers=3), prepared.body) as three:
        _wait_for_workers(three, 3)
        found["pss_mib_with_3_workers"] = three.pss_bytes() / 2**20
    return found


def _wait_for_workers(server: Server, workers: int) -> None:
    import http.client
    import time

    while True:
        connection = http.client.HTTPConnection(server.address)
        connection.request("GET", "/health")
        if json.loads(connection.getresponse().read())["workers"]["on_target_version"] == workers:
            return
        time.sleep(0.05)


# Telling -------------------------------------------------------------------------------------------------------------


def _memory_line(memory: dict[str, list[int]]) -> str:
    return "PSS in MiB: " + ", ".join(f"{name} {sum(each) / 2**20:.0f}" for name, each in memory.items())


def _summary(
    singles: Sequence[Measured],
    batches: Sequence[Measured],
    loop: Sequence[float],
    memory: dict[str, list[int]],
    starts: dict[str, float],
) -> dict[str, Any]:
    def median(name: str, connections: int, what: str) -> float:
        return statistics.median(
            getattr(run, what) for run in singles if (run.server, run.connections) == (name, connections)
        )

    def rows_per_second(rows: int) -> float:
        return rows * statistics.median(run.per_second for run in batches if run.rows == rows)

    one = [
        {
            "connections": connections,
            "per_second": {name: round(median(name, connections, "per_second")) for name in memory},
            "cpu_us": {name: round(median(name, connections, "cpu_us")) for name in memory},
            "p50_ms": median(SERVICE, connections, "p50_ms"),
            "p99_ms": median(SERVICE, connections, "p99_ms"),
            "of_bare_wsgi": median(SERVICE, connections, "per_second") / median(BARE, connections, "per_second"),
            "times_flask_sklearn": median(SERVICE, connections, "per_second")
            / median(SKLEARN, connections, "per_second"),
        }
        for connections in CONNECTIONS
    ]
    many = [
        {
            "rows": rows,
            "rows_per_second": round(rows_per_second(rows)),
            "of_bare_loop": rows_per_second(rows) / statistics.median(loop),
            "cpu_us_per_row": statistics.median(run.cpu_us for run in batches if run.rows == rows) / rows,
        }
        for rows in BATCHES
    ]
    return {
        "failed": sum(run.failed for run in (*singles, *batches)),
        "one_wine": one,
        "batches": many,
        "pss_mib": {name: round(sum(each) / 2**20, 1) for name, each in memory.items()},
        "start": starts | {"ratio": starts["first_answer"] / starts["imports"]},
    }


if __name__ == "__main__":
    main()
