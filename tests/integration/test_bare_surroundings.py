"""Gunicorn where it may do next to nothing: no environment, no right, and nothing to write to but state and cache."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.models import WINE
from tests.server import ROOT, ended_at_last, start_server

UID = 10001
_READ_ONLY = 0o555


@pytest.fixture
def open_folder():
    """A folder that any user can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def writable(open_folder) -> dict[str, str]:
    """The settings for folders that are the service's own."""
    folders = {"STATE_DIR": open_folder / "state", "MODEL_CACHE_DIR": open_folder / "cache"}
    for folder in folders.values():
        folder.mkdir()
        if os.getuid() == 0:
            os.chown(folder, UID, UID)
    return {variable: str(folder) for variable, folder in folders.items()}


@pytest.fixture
def installed(open_folder) -> Path:
    """A working directory as in the image, which nobody may write to."""
    folder = open_folder / "installed"
    folder.mkdir()
    for name in ("gunicorn.conf.py", "wsgi.py"):
        shutil.copy(ROOT / name, folder)
    folder.chmod(_READ_ONLY)
    return folder


def as_somebody_else() -> list[str]:
    """Return the command that runs another as a user who owns nothing; who is not root is such a user already.

    Where the interpreter or this checkout lies in root's own folders, that user may read them, and still write nothing.
    """
    if os.getuid() != 0:
        return []
    command = ["/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs"]
    needed = {Path(os.path.realpath(sys.executable)), Path(sys.prefix), ROOT / "wsgi.py"}
    if any(not folder.stat().st_mode & 0o001 for path in needed for folder in path.parents):
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return command


def test_serves_reloads_and_drains_with_nothing_but_two_folders(open_folder, writable, installed, folder, models):
    folder.publish("1.0", models.fives_and_sixes)
    folder.publish("2.0", models.sevens_and_eights)
    folder.promote("1.0")
    published = shutil.copytree(folder.path, open_folder / "models")
    nothing = {"PATH": "", "HOME": "/nonexistent", "TMPDIR": ""}
    settings = writable | nothing | {"MODEL_DIR": str(published), "DRAIN_SECONDS": "0.2"}
    log = open_folder / "log"

    with ended_at_last(start_server(log, settings, cwd=installed, through=as_somebody_else())) as server:
        server.wait_for("/health/ready")
        assert server.post("/predict", {"features": WINE}).json["model_version"] == "1.0"

        reloaded = server.post("/model/reload", {"version": "2.0"})

        assert reloaded.status == 200
        assert server.post("/predict", {"features": WINE}).json["model_version"] == "2.0"
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in server.worker_pids()}
        assert uids == {UID if os.getuid() == 0 else os.getuid()}
        assert server.stop() == 0

    assert server.lines()
    assert server.wait_for_line("draining")
    assert sorted(path.name for path in installed.iterdir()) == ["gunicorn.conf.py", "wsgi.py"]
