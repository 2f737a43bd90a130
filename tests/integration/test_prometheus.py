"""A real Prometheus scrapes the service, loads the rules and answers the dashboard's queries; promtool checks them."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest
import yaml

from tests.mixed_traffic import mixed, send
from tests.models import ModelFolder
from tests.server import Caller, Server, free_port, running_server, wait_until

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "wine-api.json").read_text())

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="needs Debian's package prometheus"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    """A service that has seen traffic of every kind, and a model that was refused."""
    path = tmp_path_factory.mktemp("prometheus")
    folder = ModelFolder(path / "store")
    folder.publish("1.0", models.fives_and_sixes)
    folder.promote("1.0")
    with running_server(path, {"MODEL_DIR": str(folder.path)}) as server:
        send(server, mixed(60))
        folder.upload(b"broken")
        server.post("/model/reload", {})
        yield server


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory):
    """A Prometheus with the configuration that we ship, which scrapes that service, more often than one does."""
    folder = tmp_path_factory.mktemp("configured")
    for rules in PROMETHEUS.glob("*.rules.yml"):
        shutil.copy(rules, folder)
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [server.url.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        caller = Caller(f"http://127.0.0.1:{port}")
        wait_until(lambda: ready(caller), "Prometheus to start")
        yield caller
    finally:
        process.terminate()
        process.wait(30)


def ready(prometheus: Caller) -> bool:
    try:
        return prometheus.get("/-/ready").status == 200
    except OSError:
        return False


def series(prometheus: Caller, expression: str) -> list:
    """Return what Prometheus says to *expression*, as Grafana would ask it."""
    asked = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
    answer = prometheus.get("/api/v1/query?" + urllib.parse.urlencode({"query": asked}))
    assert answer.status == 200, answer.text
    return answer.json["data"]["result"]


def dashboard_queries():
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


@pytest.mark.parametrize("expression", dashboard_queries())
def test_every_query_of_the_dashboard_returns_a_series(server, prometheus, expression):
    def asked_again():
        # A rate needs two scrapes, and traffic between them.
        send(server, mixed(20), clients=1)
        return series(prometheus, expression)

    assert wait_until(asked_again, expression)


def test_it_scrapes_the_service_and_has_loaded_every_rule(prometheus):
    wait_until(lambda: series(prometheus, 'up{job="wine-api"} == 1'), "a scrape")

    groups = prometheus.get("/api/v1/rules").json["data"]["groups"]

    loaded = {rule["name"] for group in groups for rule in group["rules"]}
    written = {
        rule.get("alert") or rule["record"]
        for path in PROMETHEUS.glob("*.rules.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    }
    assert loaded == written
    wait_until(
        lambda: all(rule["health"] == "ok" for rule in rules_of(prometheus)), "every rule to have been evaluated"
    )


def rules_of(prometheus: Caller) -> list:
    groups = prometheus.get("/api/v1/rules").json["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_a_refused_model_raises_its_alert(server, prometheus):
    firing = wait_until(
        lambda: series(prometheus, 'ALERTS{alertname="WineApiReloadRefused", alertstate="firing"}'), "the alert"
    )

    assert firing[0]["metric"]["severity"] == "warning"


def promtool(*arguments: str, stdin: bytes | None = None) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, input=stdin, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert stdin is None or not done.stdout + done.stderr


def test_promtool_has_nothing_to_say_of_the_metrics(server):
    promtool("check", "metrics", stdin=server.get("/metrics").body)


def test_every_rule_is_valid():
    promtool("check", "rules", *(path.name for path in PROMETHEUS.glob("*.rules.yml")))
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_its_fault_is_made():
    promtool("test", "rules", "alerts.test.yml")
