"""What a result was measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def description() -> dict[str, Any]:
    """Return the commit, the moment, the machine and the versions of what counts."""
    return {
        "commit": _git("rev-parse", "HEAD") + ("-dirty" if _git("status", "--porcelain") else ""),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "processors": os.cpu_count(),
            "system": platform.platform(),
            "load_average": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("scikit-learn", "numpy", "scipy", "flask", "gunicorn")},
        },
    }


def write(path: Path, **found: Any) -> None:
    """Write what was *found* to *path*, with what it was found on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**description(), **found}, indent=1) + "\n")
    print(f"\nwritten to {path}")


def result_path(name: str) -> Path:
    """Return where the result of the benchmark *name* goes by default."""
    return RESULTS / f"{name}.json"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
