"""Print what CHANGELOG.md says of a version: release_notes.py v1.2.3."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def notes_of(version: str, changelog: str) -> str:
    """Return the part of *changelog* below the heading of *version*; LookupError if there is none."""
    found = re.search(rf"^## \[{re.escape(version)}\].*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise LookupError(f"CHANGELOG.md says nothing of {version}: give its part of [Unreleased] a heading")
    return found[1].strip()


if __name__ == "__main__":
    try:
        sys.stdout.write(notes_of(sys.argv[1].removeprefix("v"), CHANGELOG.read_text()) + "\n")
    except LookupError as error:
        sys.exit(str(error))
