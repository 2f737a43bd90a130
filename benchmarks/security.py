"""What auth, limits and headers cost a request, in CPU time: on, off, and each part by itself.

    python benchmarks/security.py

Compares the whole application with one that has the same views and none of the protection. Each figure is the smallest
of many batches, as noise only adds. `python benchmarks/security.py --json` writes one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

from flask import Flask
from werkzeug.test import EnvironBuilder

from wine_api import app as application
from wine_api.config import Rate, Settings
from wine_api.security import keys
from wine_api.security.access import Access, Scope
from wine_api.security.counters import HostCounters
from wine_api.security.guard import guard_of
from wine_api.services import services_of

BATCHES, REQUESTS = 300, 40


def caller(app: Flask, headers: dict[str, str]) -> Callable[[], None]:
    environ = EnvironBuilder(path="/model/none", method="GET", headers=headers).get_environ()

    def call() -> None:
        body = app.wsgi_app(dict(environ), lambda status, headers, exc_info=None: None)
        b"".join(body)
        body.close()

    return call


def cheapest(calls: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Return µs of CPU a call for each of *calls*, taking turns so that all meet the same machine."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(BATCHES):
        for name, call in calls.items():
            started = time.thread_time_ns()
            for _ in range(REQUESTS):
                call()
            best[name] = min(best[name], (time.thread_time_ns() - started) / 1000 / REQUESTS)
    return best


def build(settings: Settings, *, protected: bool = True) -> Flask:
    if protected:
        app = application.create_app(settings)
    else:
        no_guard = mock.Mock(access_of=mock.Mock(return_value=None))
        with (
            mock.patch.object(application.security, "init_app"),
            mock.patch.object(application.api, "guard_of", return_value=no_guard),
            mock.patch("wine_api.api.openapi.guard_of", return_value=no_guard),
        ):
            app = application.create_app(settings)
    # A view that does nothing: the model has its own benchmark.
    app.add_url_rule("/model/none", "model.show_nothing", lambda: b"{}")
    if protected:
        guard_of(app).open({"model.show_nothing": Access(Scope.PREDICT)})
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        off = Settings(state_dir=state, model_cache_dir=Path(folder) / "cache")
        key_file = Path(folder) / "keys.json"
        key = [keys.create_key(key_file, f"key {number}", [Scope.PREDICT], None) for number in range(20)][10]
        limits = {"rate_limit": Rate(10**9, 3600), "rate_limit_rows": Rate(10**12, 3600)}
        on = replace(off, api_keys_file=key_file, **limits)
        apps = {
            "bare": build(off, protected=False),
            "off": build(off),
            "keys": build(replace(off, api_keys_file=key_file)),
            "limits": build(replace(off, **limits)),
            "on": build(on),
        }
        services_of(apps["on"]).fleet.begin_run(1)
        best = cheapest({name: caller(app, {"X-API-Key": key}) for name, app in apps.items()})
        counters = HostCounters(state / "limits")
        counting = cheapest({"count": lambda: counters.take((1, 2), 1, Rate(10**9, 3600))})["count"]
    added = {name: round(best[name] - best["bare"], 1) for name in best}
    rows_too = round(added["on"] + counting, 1)  # the view of the benchmark counts no rows; /predict does
    figures = {"bare_us": round(best["bare"], 1), "added_us": added, "on_with_rows_us": rows_too}
    figures["one_count_us"] = round(counting, 1)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"bare application: {best['bare']:.1f} µs a request")
    for name in ("off", "keys", "limits", "on"):
        print(f"  + {added[name]:5.1f} µs  {name}")
    print(f"  + {rows_too:5.1f} µs  on, with the rows of /predict counted (one count: {counting:.1f} µs)")


if __name__ == "__main__":
    main()
