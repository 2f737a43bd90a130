"""Small files that several processes read and write at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_LOCK_POLL_SECONDS = 0.02


class FolderNotPrivate(OSError):
    """Someone else may write into a folder whose files this service would trust."""


def make_private_folder(folder: Path) -> Path:
    """Create *folder* for this user alone, or make sure that it is; folders above it are created likewise.

    Raises `FolderNotPrivate` when another user owns it: under a shared temporary directory somebody may have made it
    first, to put a model of theirs into it. A folder of root's is the operator's affair.
    """
    if not folder.exists():
        if not folder.parent.exists():
            make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid not in (os.getuid(), 0):
        raise FolderNotPrivate(f"the folder {folder.name} belongs to another user")
    if found.st_uid == os.getuid() and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        folder.chmod(0o700)
    return folder


def resident_memory(pid: int) -> int | None:
    """Return how many bytes of memory the process *pid* has, shared ones included; None without such a process."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") or None


def write_json(path: Path, document: Any) -> None:
    """Replace *path* by *document*: a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(json.dumps(document))
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """Return the document at *path*, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def try_lock(path: Path) -> IO[bytes] | None:
    """Lock *path* against all other processes, or return None if one holds it.

    The lock lasts until the returned file is closed or its process ends, however it ends.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at *path*. Any number may ask at once."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def locked(path: Path, deadline: float) -> Iterator[bool]:
    """Hold the lock at *path*; yields False if it could not be had before *deadline* (`time.monotonic()`)."""
    file = try_lock(path)
    while file is None and time.monotonic() < deadline:
        # flock cannot wait with a limit, and threads of one process that wait for each other do not mind 20 ms.
        time.sleep(_LOCK_POLL_SECONDS)
        file = try_lock(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()
