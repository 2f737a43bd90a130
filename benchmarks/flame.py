"""Draws a flame graph of one worker under load.

    python -m benchmarks.flame flame.svg

Needs wrk, and the right to look into another process (root, or ptrace_scope 0).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import processes, wrk
from benchmarks.layers import WINE

SECONDS = 10


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "flame.svg"
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_text(json.dumps({"features": WINE}) + "\n")
        environment = {"STATE_DIR": f"{folder}/state", "MODEL_CACHE_DIR": f"{folder}/cache", "WEB_CONCURRENCY": "1"}
        body = bodies.read_bytes()
        with processes.running(["--config", "gunicorn.conf.py", "wsgi:app"], environment, body) as server:
            command = ["py-spy", "record", "--gil", "--rate", "500", "--duration", str(SECONDS - 2), "--output", out]
            spy = subprocess.Popen([*command, "--pid", str(server.pids()[1])])
            wrk.run(server.address, "/predict", bodies, connections=8, seconds=SECONDS)
            if spy.wait():
                sys.exit("py-spy could not look into the worker")


if __name__ == "__main__":
    main()
