"""Small files that several processes share: whole or not at all, and locked by one at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from tests.server import wait_until
from wine_api.serving.files import FolderNotPrivate, locked, make_private_folder, read_json, try_lock, write_json

HOLD = "import sys\nfrom pathlib import Path\nfrom wine_api.serving.files import try_lock\n"
HOLD += "lock = try_lock(Path(sys.argv[1]))\nprint('held' if lock else 'refused', flush=True)\nsys.stdin.read()"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "document.json"


@pytest.fixture
def other_process(tmp_path):
    """Another process that holds the lock at `tmp_path / "lock"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def mode_of(folder):
    return stat.S_IMODE(folder.stat().st_mode)


# Folders


def test_a_folder_is_made_for_this_user_alone_and_those_above_it_too(tmp_path):
    made = make_private_folder(tmp_path / "a" / "b")

    assert made == tmp_path / "a" / "b"
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_others_may_write_to_is_closed(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)

    make_private_folder(folder)

    assert mode_of(folder) == 0o700


def test_a_folder_that_is_private_is_left_as_it_is(tmp_path):
    (tmp_path / "file").touch()

    make_private_folder(tmp_path)

    assert (tmp_path / "file").exists()


@pytest.fixture
def foreign_folder(tmp_path, monkeypatch):
    """A folder of another user; only root can give one away, anybody else must become another user."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    if os.getuid() == 0:
        os.chown(folder, 12345, 12345)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    return folder


def test_a_folder_of_somebody_else_is_refused(foreign_folder):
    with pytest.raises(FolderNotPrivate, match="theirs belongs to another user"):
        make_private_folder(foreign_folder)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        make_private_folder(tmp_path / "file" / "below")


# Documents


@pytest.mark.parametrize("document", [{"a": [1, 2.5, None, "é🍷"]}, [], None, "text", 0], ids=repr)
def test_a_document_is_read_as_it_was_written(path, document):
    write_json(path, document)

    assert read_json(path) == document


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"nothing"], ids=["empty", "cut", "bytes", "text"])
def test_what_cannot_be_read_is_not_there(path, content):
    path.write_bytes(content)

    assert read_json(path) is None


def test_what_is_not_there_is_not_there(path):
    assert read_json(path) is None


def test_writing_leaves_nothing_else_behind(path):
    write_json(path, 1)
    write_json(path, 2)

    assert [*path.parent.iterdir()] == [path]


def test_readers_never_see_a_part(path):
    large = [0] * 50_000
    write_json(path, large)
    stop = threading.Event()
    writer = threading.Thread(target=lambda: [write_json(path, large) for _ in iter(stop.is_set, True)])
    writer.start()

    seen = [read_json(path) for _ in range(50)]

    stop.set()
    writer.join()
    assert all(document == large for document in seen)


def test_writers_of_one_process_do_not_mix(path):
    writers = [threading.Thread(target=write_json, args=(path, [number] * 10_000)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert len(set(read_json(path))) == 1


# Locks


def test_only_one_holds_a_lock(tmp_path):
    first = try_lock(tmp_path / "lock")

    second = try_lock(tmp_path / "lock")

    assert first is not None
    assert second is None
    first.close()


def test_a_lock_ends_when_it_is_closed(tmp_path):
    try_lock(tmp_path / "lock").close()

    with try_lock(tmp_path / "lock") as lock:
        assert lock is not None


def test_a_lock_holds_against_other_processes(tmp_path, other_process):
    assert try_lock(tmp_path / "lock") is None


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path, other_process):
    other_process.kill()
    other_process.wait()

    with try_lock(tmp_path / "lock") as lock:
        assert lock is not None


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path, other_process):
    got = []

    def wait():
        with locked(tmp_path / "lock", time.monotonic() + 30) as held:
            got.append(held)

    waiting = threading.Thread(target=wait)
    waiting.start()
    other_process.kill()

    wait_until(lambda: got, "the lock")
    waiting.join()
    assert got == [True]


def test_waiting_for_a_lock_ends_at_the_deadline(tmp_path, other_process):
    with locked(tmp_path / "lock", time.monotonic() + 0.05) as held:
        assert held is False


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "lock", time.monotonic()):
        raise RuntimeError

    with locked(tmp_path / "lock", time.monotonic()) as held:
        assert held is True
