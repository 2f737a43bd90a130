"""Write what the code knows best: the tables of docs/, the model card's schema there, and the rules for Kubernetes."""

import shutil
from pathlib import Path

from wine_api.app import create_app
from wine_api.config import Settings, settings_reference
from wine_api.metrics import metrics_reference
from wine_api.services import services_of

RULE_HEAD = """\
# Written by `make docs` from deploy/prometheus/*.rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: wine-api
spec:
  groups:
"""

ROOT = Path(__file__).resolve().parent.parent


def write_table(page: Path, name: str, table: str) -> None:
    """Put *table* between its marks."""
    begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(before + begin + "\n" + table + "\n" + end + after)


def prometheus_rule() -> str:
    """Return the rules of Prometheus as the object that its Kubernetes operator takes."""
    groups = []
    for path in sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yml")):
        _, _, text = path.read_text().partition("groups:\n")
        groups.append("".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True)))
    return RULE_HEAD + "\n".join(groups)


if __name__ == "__main__":
    docs = ROOT / "docs"
    write_table(docs / "configuration.md", "settings", settings_reference())
    write_table(docs / "metrics.md", "metrics", metrics_reference(services_of(create_app(Settings())).metrics))
    (ROOT / "deploy/kubernetes/components/monitoring/prometheus-rule.yaml").write_text(prometheus_rule())
    shutil.copy(ROOT / "wine_api" / "serving" / "model_card.schema.json", docs / "model_card.schema.json")
