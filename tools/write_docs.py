"""Write the parts of docs/ that the code knows best: docs/configuration.md and docs/model_card.schema.json."""

import shutil
from pathlib import Path

from wine_api.config import settings_reference

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- settings: written by `make docs` -->\n", "<!-- end of settings -->\n"


def write_settings() -> None:
    """Put the table of settings between its marks."""
    page = ROOT / "docs" / "configuration.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + "\n" + settings_reference() + "\n" + END + after)


if __name__ == "__main__":
    write_settings()
    shutil.copy(ROOT / "wine_api" / "serving" / "model_card.schema.json", ROOT / "docs" / "model_card.schema.json")
