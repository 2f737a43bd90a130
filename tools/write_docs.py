"""Write what the code knows best into docs/: the tables of settings and metrics, and the model card's schema."""

import shutil
from pathlib import Path

from wine_api.app import create_app
from wine_api.config import Settings, settings_reference
from wine_api.metrics import metrics_reference
from wine_api.services import services_of

ROOT = Path(__file__).resolve().parent.parent


def write_table(page: Path, name: str, table: str) -> None:
    """Put *table* between its marks."""
    begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(before + begin + "\n" + table + "\n" + end + after)


if __name__ == "__main__":
    docs = ROOT / "docs"
    write_table(docs / "configuration.md", "settings", settings_reference())
    write_table(docs / "metrics.md", "metrics", metrics_reference(services_of(create_app(Settings())).metrics))
    shutil.copy(ROOT / "wine_api" / "serving" / "model_card.schema.json", docs / "model_card.schema.json")
