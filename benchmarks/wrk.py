"""Runs wrk, and reads what it says."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Load:
    """What one run came to; *failed* counts answers that are not 2xx and errors of connections."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    failed: int


def run(address: str, path: str, bodies: Path, *, connections: int, seconds: float) -> Load:
    """Post *bodies*, a file of one a line, to *path* at *address* over *connections* that are kept open."""
    command = ["wrk", "--latency", "-t", "1" if connections < 2 else "2", "-c", str(connections)]
    command += ["-d", f"{seconds:g}s", "--timeout", "30s", "-s", str(Path(__file__).with_name("post.lua"))]
    environment = {**os.environ, "BODIES": str(bodies)}
    said = subprocess.run(
        [*command, f"http://{address}{path}"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    return Load(
        requests=int(_found(r"(\d+) requests in", said)),
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", said)),
        p50_ms=_milliseconds(r"(?m)^\s+50%\s+(\S+)", said),
        p99_ms=_milliseconds(r"(?m)^\s+99%\s+(\S+)", said),
        slowest_ms=_milliseconds(r"(?m)^\s+Latency\s+\S+\s+\S+\s+(\S+)", said),
        failed=sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
        + sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said))),
    )


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"wrk did not say {pattern}: {text}")
    return found.group(1)


def _milliseconds(pattern: str, text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", _found(pattern, text)).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS_MS[unit]
