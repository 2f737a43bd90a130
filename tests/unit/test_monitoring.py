"""Metrics, their documentation, the rules of Prometheus and the dashboard speak of the same things."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from wine_api.app import create_app
from wine_api.config import Settings
from wine_api.metrics import metrics_reference
from wine_api.services import services_of

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yml"))
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
# What Prometheus itself adds to every sample, and what a histogram's buckets have.
ADDED_LABELS = {"job", "instance", "le"}
KUBERNETES = ROOT / "deploy" / "kubernetes" / "components" / "monitoring"
CLOUDWATCH = ROOT / "deploy" / "cloudwatch"
SELECTOR = re.compile(r"\b((?:wine|flask)_[a-z_]+)(?:\{([^}]*)\})?")
# "by (…)", "without (…)", "ignoring (…)"
GROUPING = re.compile(r"\b(?:by|without|ignoring|on)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitoring")
    settings = Settings(state_dir=folder / "state", model_cache_dir=folder / "cache")
    return services_of(create_app(settings)).metrics


@pytest.fixture(scope="module")
def labels_of(metrics):
    """The labels of each sample that there can be, by its name."""
    return {sample: set(metric.labels) for metric in metrics.describe() for sample in metric.samples}


def rules():
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return [rule["alert"] for rule in rules() if "alert" in rule]


def recorded():
    return {rule["record"] for rule in rules() if "record" in rule}


def panels():
    return [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"] if "targets" in panel]


def queries():
    """Every expression that Prometheus is asked anywhere, with where it is written."""
    asked = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return asked + [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


@pytest.mark.parametrize("where, expression", queries(), ids=lambda value: value[:40])  # noqa: PT006
def test_every_query_asks_for_metrics_and_labels_that_there_are(where, expression, labels_of):
    selected = SELECTOR.findall(expression)
    named = {name for name, _ in selected}
    used = {label for _, matchers in selected for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers)}
    used |= {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")}
    there = ADDED_LABELS.union(*(labels_of.get(name, set()) for name in named))
    for record in re.findall(r"wine_api:[a-z0-9_:]+", expression):
        assert record in recorded()
        there |= {"label", "status"}

    assert named <= set(labels_of) | {"wine_api"}
    assert used <= there


def test_every_metric_is_documented(metrics):
    page = (ROOT / "docs" / "metrics.md").read_text()

    assert metrics_reference(metrics) in page, "docs/metrics.md is behind the code: run `make docs`"


def test_what_is_described_is_what_is_shown(shared_app, client, metrics):
    """Every family that a scrape shows is described, with its labels."""
    described = {metric.name.removesuffix("_total"): set(metric.labels) for metric in metrics.describe()}
    client.get("/")

    shown = services_of(shared_app).metrics
    families = [family for collector in shown._collectors() for family in collector.collect()]

    for family in families:
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == described[family.name]


def test_every_alert_has_its_heading_in_the_runbook():
    headings = re.findall(r"^### (WineApi\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)

    assert sorted(headings) == sorted(alerts())


def test_every_alert_points_to_its_heading():
    pointers = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}

    assert pointers == {alert: f"docs/runbook.md#{alert.lower()}" for alert in alerts()}


def test_every_alert_has_a_case_in_which_it_fires():
    cases = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.test.yml").read_text())["tests"]
    fired = {check["alertname"] for case in cases for check in case["alert_rule_test"] if check["exp_alerts"]}

    assert fired == set(alerts())


def test_every_metric_is_on_the_dashboard_or_in_an_alert(metrics):
    """A metric that nobody looks at is not worth its cost."""
    asked = " ".join(expression for _, expression in queries())

    unseen = [metric.name for metric in metrics.describe() if metric.name not in asked]

    assert unseen == []


def test_kubernetes_has_the_same_rules():
    rule = yaml.safe_load((KUBERNETES / "prometheus-rule.yaml").read_text())
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]

    assert rule["spec"]["groups"] == groups, "the rules for Kubernetes are behind: run `make docs`"


def test_cloudwatchs_agent_accepts_its_configuration():
    schema = json.loads((ROOT / "tests/data/cloudwatch/amazon-cloudwatch-agent.schema.json").read_text())
    configuration = json.loads((CLOUDWATCH / "amazon-cloudwatch-agent.json").read_text())

    jsonschema.Draft4Validator(schema).validate(configuration)


def test_cloudwatch_is_sent_metrics_and_dimensions_that_there_are(labels_of):
    agent = json.loads((CLOUDWATCH / "amazon-cloudwatch-agent.json").read_text())
    processor = agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]

    assert set(processor["metric_unit"]) <= set(labels_of)
    for declared in processor["metric_declaration"]:
        for selector in declared["metric_selectors"]:
            labels = labels_of[selector.strip("^$")]
            assert all(set(dimensions) <= labels | {"job"} for dimensions in declared["dimensions"])
