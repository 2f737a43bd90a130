"""The numbers that workers count in: of prometheus_client's format, and each worker's own."""

from __future__ import annotations

import json
import subprocess
import sys

FORKED = """
import json, os, sys, threading
from pathlib import Path
from wine_api import metrics
folder = Path(sys.argv[1])
metrics.count_in_files(folder)
own = metrics.Metrics()
own.errors.labels("of the master").inc()
for slot in (0, 1):
    if os.fork() == 0:
        metrics.use_slot(slot)
        count = lambda: [own.errors.labels("x").inc() for _ in range(1000)]
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(2000):  # so many that the file has to grow while others count
            own.errors.labels(str(number)).inc()
        for thread in threads:
            thread.join()
        os._exit(0)
for _ in (0, 1):
    os.wait()
lines = dict(line.rsplit(" ", 1) for line in own.render("")[0].decode().splitlines() if line.startswith("wine_errors_"))
values = {name.split('"')[1]: float(value) for name, value in lines.items()}
print(json.dumps({name: values.get(name) for name in ("x", "of the master", "0", "1999")}))
"""


def test_workers_threads_and_the_master_count_together_and_nothing_is_lost(tmp_path):
    done = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path)], check=True, capture_output=True)

    assert json.loads(done.stdout) == {"x": 8000, "of the master": 1, "0": 2, "1999": 2}
