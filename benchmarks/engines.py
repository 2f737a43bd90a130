"""Measures the engines of the service against scikit-learn, and against a bare loop over the trees.

    OMP_NUM_THREADS=1 python -m benchmarks.engines
    OMP_NUM_THREADS=1 python -m benchmarks.engines --models forest --rows 1 1000

With all models, and 1 to 10,000 rows, it takes about ten minutes.

The numbers are CPU time of the thread (and wall time, in the JSON), so that other work on the machine disturbs them
little. All ways to compute take turns, each time with other rows: a service, too, does other things between two rows,
which are not those of the request before. Of each batch the best of some repetitions counts, and of those the median.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from benchmarks import machine
from benchmarks.floors.bare_loop import loop
from benchmarks.wines import add_data_option, both_tables, perturbed
from wine_api.serving.engines.choice import choose_engine
from wine_api.serving.gates import VettedModel
from wine_api.serving.shape import classes_of, make_servable

ROWS = (1, 2, 3, 4, 8, 16, 32, 48, 49, 64, 100, 127, 128, 256, 511, 512, 1000, 2000, 5000, 10000)
REPETITIONS = 5

Way = Callable[[Any], Any]


def _logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _members() -> list[tuple[str, Any]]:
    return [
        ("forest", RandomForestClassifier(100, random_state=0)),
        ("extra", ExtraTreesClassifier(100, random_state=0)),
        ("logistic", _logistic()),
    ]


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(100, random_state=0),
    "forest_300": lambda: RandomForestClassifier(300, random_state=0),
    "forest_min_leaf_5": lambda: RandomForestClassifier(100, min_samples_leaf=5, random_state=0),
    "scaled_forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(100, random_state=0)),
    "forest_regressor": lambda: RandomForestRegressor(100, random_state=0),
    "extra_trees": lambda: ExtraTreesClassifier(100, random_state=0),
    "shallow_forest": lambda: RandomForestClassifier(100, max_depth=5, random_state=0),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "gradient_boosting": lambda: GradientBoostingClassifier(random_state=0),
    "gradient_boosting_regressor": lambda: GradientBoostingRegressor(random_state=0),
    "hist_gradient_boosting": lambda: HistGradientBoostingClassifier(random_state=0),
    "voting": lambda: VotingClassifier(_members(), voting="soft"),
    "stacking": lambda: StackingClassifier(_members(), LogisticRegression(max_iter=1000), cv=3),
    "scaled_logistic": _logistic,
}
# Those whose sum over the trees can be written as one line.
LOOPS = ("forest", "forest_300", "forest_min_leaf_5", "shallow_forest", "extra_trees")


@dataclass(frozen=True)
class Result:
    """What one way to compute takes for batches of one size, in microseconds."""

    model: str
    rows: int
    way: str
    cpu_us: float
    wall_us: float


def main() -> None:
    options = _options()
    wines, qualities = both_tables(options.data)
    pool = perturbed(wines, 40_000)
    results: list[Result] = []
    loads: dict[str, dict[str, Any]] = {}
    for name in options.models:
        estimator = MODELS[name]().fit(wines, qualities)
        ways, loads[name] = _ways(name, estimator)
        for rows in options.rows:
            measured = _measure(name, ways, _batches(pool, rows))
            results += measured
            print(_line(measured), flush=True)
    machine.write(
        options.out,
        threads=os.environ.get("OMP_NUM_THREADS"),
        loads=loads,
        results=[asdict(result) for result in results],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the engines.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    add_data_option(parser)
    parser.add_argument("--out", type=Path, default=machine.result_path("engines"))
    return parser.parse_args()


def _batches(pool: Any, rows: int) -> list[Any]:
    random = np.random.default_rng(rows)
    count = max(3, min(100, 6000 // rows))
    return [pool[random.choice(len(pool), size=rows, replace=False)] for _ in range(count)]


def _ways(name: str, estimator: Any) -> tuple[dict[str, Way], dict[str, Any]]:
    """Return the ways to compute *estimator*, and what choosing an engine for it took."""
    make_servable(estimator)
    classes = classes_of(estimator)
    vetted = VettedModel(estimator, None, classes, classes is not None, {}, None, "")
    started = time.thread_time()
    engine, reason = choose_engine(vetted)
    chosen = time.thread_time()
    choose_engine(vetted, proven=True)
    rebuilt = time.thread_time()
    print(f"\n{name}: {engine.name}{f' ({reason})' if reason else ''}, {1000 * (chosen - started):.0f} ms to choose")
    ways: dict[str, Way] = {
        "engine": engine.predict,
        "sklearn": estimator.predict if classes is None else estimator.predict_proba,
    }
    if name in LOOPS:
        ways["loop"] = loop(estimator)
    cost = {"engine": engine.name, "choose_ms": 1000 * (chosen - started), "build_ms": 1000 * (rebuilt - chosen)}
    return ways, cost


def _measure(model: str, ways: dict[str, Way], batches: list[Any]) -> list[Result]:
    cpu = {way: np.full(len(batches), np.inf) for way in ways}
    wall = {way: np.full(len(batches), np.inf) for way in ways}
    for _ in range(REPETITIONS):
        for turn in range(len(batches)):
            for place, (way, compute) in enumerate(ways.items()):
                # Not the same rows one after the other: the processor would remember which way they go.
                number = (turn + place) % len(batches)
                cpu_started, wall_started = time.thread_time_ns(), time.perf_counter_ns()
                compute(batches[number])
                wall_ended, cpu_ended = time.perf_counter_ns(), time.thread_time_ns()
                cpu[way][number] = min(cpu[way][number], cpu_ended - cpu_started)
                wall[way][number] = min(wall[way][number], wall_ended - wall_started)
    rows = len(batches[0])
    return [Result(model, rows, way, np.median(cpu[way]) / 1e3, np.median(wall[way]) / 1e3) for way in ways]


def _line(measured: Iterable[Result]) -> str:
    by_way = {result.way: result for result in measured}
    engine = by_way["engine"]
    columns = [f"{result.way} {result.cpu_us:10.1f} us" for result in by_way.values()]
    ratios = [
        f"{result.cpu_us / engine.cpu_us:6.2f} x faster than {result.way}"
        for result in by_way.values()
        if result is not engine
    ]
    return f"  {engine.rows:6d} rows   " + "   ".join([*columns, *ratios])


if __name__ == "__main__":
    main()
