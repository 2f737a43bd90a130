"""Real Gunicorn, four workers: every counter is what the client counted, whatever happens to workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mixed_traffic import Ask, counted, mixed, scrape, send
from tests.models import WINE
from tests.server import Server, running_server, wait_until

REQUESTS = 1000
RESTARTS = 8
FILES_OF_FOUR = {
    f"{kind}_{slot}.db" for kind in ("counter", "histogram", "gauge_livesum") for slot in ("master", *range(4))
}
JSON = {"Content-Type": "application/json"}
SUCCESSES = ("wine_predictions_total", "endpoint=predict", "outcome=success")


@pytest.fixture
def server(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "4"}
    with running_server(tmp_path, settings) as server:
        yield server


def test_every_counter_equals_what_the_client_counted(server: Server):
    before = scrape(server)

    tally = send(server, mixed(REQUESTS))

    after = scrape(server)
    tally.add(Ask("GET", "/metrics", "/metrics"), 200, b"")  # the first look is counted in the second
    assert counted(before, after, {name for name, *_ in tally.counts}) == tally.counts
    confidence = after["wine_confidence_sum",] - before["wine_confidence_sum",]
    assert confidence == pytest.approx(tally.confidence)


def test_paths_and_methods_that_callers_make_up_add_no_series(server: Server):
    send(server, mixed(200))
    before = scrape(server)

    send(server, (Ask(f"ODD{number}", f"/another/{number}") for number in range(100)))
    send(server, (Ask("GET", f"/yet/another/{number}") for number in range(100)))

    # The first look at the metrics adds its own route and status.
    new = {key for key in scrape(server).keys() - before.keys() if "url_rule=/metrics" not in key}
    assert {label for key in new for label in key[1:] if not label.startswith("le=")} <= {
        "method=OTHER",
        "status=404",
        "url_rule=None",
    }


def test_no_counter_falls_and_no_file_is_added_when_workers_die(server: Server):
    send(server, mixed(60))
    counts = scrape(server)

    seen = [scrape(server)[SUCCESSES] for _ in kill_workers(server, RESTARTS)]

    assert seen == sorted(seen)
    assert seen[0] >= counts[SUCCESSES]
    assert files_of(server) <= FILES_OF_FOUR
    tally = send(server, [Ask("POST", "/predict", "/predict", json.dumps({"features": WINE}).encode(), JSON)] * 10)
    assert scrape(server)[SUCCESSES] == seen[-1] + 10
    assert tally.counts[SUCCESSES] == 10


def test_a_scrape_during_reloads_and_starts_of_workers_is_answered(server: Server):
    over = threading.Event()
    with ThreadPoolExecutor(1) as scraper:
        statuses = scraper.submit(statuses_until, over, server)
        reloads = [server.post("/model/reload", {"version": version}).status for version in ("2.0", "1.0") * 3]
        for _ in kill_workers(server, 2):
            pass
        over.set()

    assert set(reloads) == {200}
    assert set(statuses.result()) == {200}


def statuses_until(over: threading.Event, server: Server) -> list[int]:
    """Scrape until it is *over*; a connection that a killed worker had taken is another matter."""
    statuses = []
    while not over.is_set():
        with contextlib.suppress(OSError, http.client.HTTPException):
            statuses.append(server.get("/metrics").status)
    return statuses


def kill_workers(server: Server, count: int):
    """Kill a worker, wait until there are four again, and yield; *count* times."""
    for number in range(count):
        victim = min(server.worker_pids())
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda gone=victim: gone not in server.worker_pids() and server.metric("wine_workers_converged") == 4,
            f"worker {number} to be replaced",
        )
        yield number


def files_of(server: Server) -> set[str]:
    """Return the names of the files that the workers count in."""
    return {path.name for path in (server.folder / "state" / "metrics").iterdir()}
