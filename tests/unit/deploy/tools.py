"""Linters of this virtual environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.server import ROOT


def complaints(tool: str, *arguments: str | Path) -> str:
    """Return what *tool* says if it is not content, else nothing."""
    command = [Path(sys.executable).with_name(tool), *arguments]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return said.stdout + said.stderr if said.returncode else ""
