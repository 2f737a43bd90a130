"""Draws throughput and latency against batch size and concurrency."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from benchmarks.serving import Measured

mpl.rcParams["svg.hashsalt"] = "wine"  # the same numbers make the same file


def draw(path: Path, *, singles: Sequence[Measured], batches: Sequence[Measured], loop: float) -> None:
    """Write the plots to *path*; *loop* is the rows a second of the bare loop over the trees."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    ((throughput, latency), (rows, duration)) = figure.subplots(2, 2)
    for name in dict.fromkeys(run.server for run in singles):
        runs = [run for run in singles if run.server == name]
        throughput.plot(*_medians(runs, "connections", "per_second"), marker="o", label=name)
        latency.plot(*_medians(runs, "connections", "p99_ms"), marker="o", label=f"{name}, p99")
    throughput.set(title="One wine", xlabel="connections", ylabel="requests/s", xscale="log", yscale="log")
    latency.set(title="One wine", xlabel="connections", ylabel="ms", xscale="log", yscale="log")
    sizes, per_second = _medians(batches, "rows", "per_second")
    rows.plot(sizes, [size * speed for size, speed in zip(sizes, per_second, strict=True)], marker="o", label="service")
    rows.axhline(loop, linestyle="--", color="gray", label="bare loop over the trees, no server")
    rows.set(title="Batches, 4 connections", xlabel="rows a batch", ylabel="rows/s", xscale="log", yscale="log")
    for what in ("p50_ms", "p99_ms"):
        duration.plot(*_medians(batches, "rows", what), marker="o", label=what.removesuffix("_ms"))
    duration.set(title="Batches, 4 connections", xlabel="rows a batch", ylabel="ms", xscale="log", yscale="log")
    for axes in (throughput, latency, rows, duration):
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend()
    figure.savefig(path, metadata={"Date": None})
    print(f"drawn to {path}")


def _medians(runs: Sequence[Measured], over: str, what: str) -> tuple[list[int], list[float]]:
    places = sorted({getattr(run, over) for run in runs})
    return places, [
        statistics.median(getattr(run, what) for run in runs if getattr(run, over) == place) for place in places
    ]
