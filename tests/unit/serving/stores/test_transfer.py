"""Writing a model to this host's disk."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from wine_api.errors import ModelStoreUnavailable
from wine_api.serving.stores.transfer import copy, disk_errors, new_file


def test_a_file_that_could_not_be_finished_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "model"

    with pytest.raises(TypeError), new_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]

    assert not path.exists()


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"mine")

    with pytest.raises(ModelStoreUnavailable) as caught, new_file(path) as file:
        file.write(b"yours")

    assert caught.value.reason == "disk_error"
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [([b"12345"], "truncated"), ([b"12345", b"67890", b"!"], "replaced"), ([], "truncated")],
    ids=["less", "more", "nothing"],
)
def test_any_other_size_than_expected_is_an_error(tmp_path: Path, chunks: list[bytes], reason: str) -> None:
    with pytest.raises(ModelStoreUnavailable) as caught, new_file(tmp_path / "model") as file:
        copy(chunks, file, size=10, deadline=math.inf)

    assert caught.value.reason == reason


def test_gives_up_between_two_chunks(tmp_path: Path) -> None:
    with pytest.raises(ModelStoreUnavailable) as caught, new_file(tmp_path / "model") as file:
        copy([b"12345", b"67890"], file, size=10, deadline=time.monotonic() - 1)

    assert caught.value.reason == "timeout"


def test_a_full_disk_is_told_from_a_store_that_fails() -> None:
    with pytest.raises(ModelStoreUnavailable) as caught, open("/dev/full", "wb", buffering=0) as file:
        copy([b"12345"], file, size=5, deadline=math.inf)

    assert caught.value.reason == "disk_full"


def test_other_trouble_with_the_disk_is_told_too() -> None:
    with pytest.raises(ModelStoreUnavailable) as caught, disk_errors():
        raise OSError

    assert caught.value.reason == "disk_error"
