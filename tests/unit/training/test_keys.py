"""A signing key is written once, and only its owner can read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wine_api.serving.signatures import parse_private_key, parse_public_keys
from wine_api.training.keys import write_key_pair


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["open", "usual", "strict"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "key.pub"


def test_both_files_hold_the_key(private: Path, public: Path) -> None:
    key = write_key_pair(private, public)

    assert parse_private_key(private.read_bytes()).public_key() == key
    assert parse_public_keys(public.read_text()) == (key,)


@pytest.mark.usefixtures("umask")
def test_only_the_owner_can_read_the_private_key(private: Path, public: Path) -> None:
    write_key_pair(private, public)

    assert private.stat().st_mode & 0o777 == 0o600


def test_every_pair_is_another(tmp_path: Path) -> None:
    first = write_key_pair(tmp_path / "a", tmp_path / "a.pub")
    second = write_key_pair(tmp_path / "b", tmp_path / "b.pub")

    assert first != second


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_overwrites_nothing_and_leaves_nothing(tmp_path: Path, private: Path, public: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")

    with pytest.raises(FileExistsError):
        write_key_pair(private, public)

    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_does_not_write_through_a_link(tmp_path: Path, private: Path, public: Path) -> None:
    private.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        write_key_pair(private, public)

    assert not (tmp_path / "elsewhere").exists()


def test_both_halves_cannot_be_one_file(private: Path) -> None:
    with pytest.raises(FileExistsError):
        write_key_pair(private, private)

    assert not private.exists()
