"""A folder as a store: versions by content, links, and files that change while they are read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from wine_api.errors import ModelStoreUnavailable, ModelVersionNotFound
from wine_api.serving.stores.base import ARTIFACT_NAME, CARD_NAME, VersionExists, version_key
from wine_api.serving.stores.local import LocalStore, Memory

MODEL_KEY = f"models/latest/{ARTIFACT_NAME}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder, model_key=MODEL_KEY)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "arrived"


def put(folder: Path, key: str, content: bytes, *, age_seconds: float = 3600) -> Path:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age_seconds, time.time() - age_seconds))
    return path


def put_card(folder: Path, version: str, artifact: bytes) -> None:
    card = {"artifact": {"sha256": sha256(artifact).hexdigest()}}
    put(folder, version_key(version, CARD_NAME), json.dumps(card).encode())


@contextmanager
def as_a_user_without_rights() -> Iterator[None]:
    """Do without the rights of root, which may read everything; other users have none in a closed folder anyway."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)


class TestVersions:
    def test_finds_the_version_whose_card_names_the_bytes(self, folder: Path, store: LocalStore) -> None:
        put(folder, MODEL_KEY, b"model two")
        put_card(folder, "1.0", b"model one")
        put_card(folder, "2.0", b"model two")

        assert store.latest().version == "2.0"

    def test_of_two_versions_with_the_same_bytes_takes_the_higher(self, folder: Path, store: LocalStore) -> None:
        put(folder, MODEL_KEY, b"model")
        put_card(folder, "1.9", b"model")
        put_card(folder, "1.10", b"model")

        assert store.latest().version == "1.10"

    @pytest.mark.parametrize(
        "card",
        [b"", b"{", b"[]", b"{}", b'{"artifact": 5}', b"[" * 100_000, b"\xff\xfe", b" " * 2_000_000],
        ids=["empty", "cut", "list", "no artifact", "number", "deep", "not UTF-8", "too large"],
    )
    def test_a_broken_card_of_one_version_does_not_hide_the_others(
        self, folder: Path, store: LocalStore, card: bytes
    ) -> None:
        put(folder, MODEL_KEY, b"model")
        put(folder, version_key("1.0", CARD_NAME), card)
        put_card(folder, "2.0", b"model")

        assert store.latest().version == "2.0"

    def test_a_card_that_changes_is_read_again(self, folder: Path, store: LocalStore) -> None:
        put(folder, MODEL_KEY, b"model")
        put_card(folder, "1.0", b"another")
        before = store.latest()

        put_card(folder, "1.0", b"model")

        assert (before.version, store.latest().version) == (None, "1.0")

    def test_a_key_in_a_version_folder_is_that_version(self, folder: Path) -> None:
        bundled = LocalStore(folder, model_key=version_key("1.0.0"), kind="bundled")
        put(folder, version_key("1.0.0"), b"model")
        put(folder, version_key("1.0.0", CARD_NAME), b"card")

        model = bundled.latest()

        assert model.version == "1.0.0"
        assert bundled.card(model) == b"card"
        assert bundled.versions() == [model] == [bundled.find("1.0.0")]
        assert bundled.location(model)["kind"] == "bundled"

    def test_a_key_in_a_version_folder_cannot_be_promoted_to(self, folder: Path) -> None:
        bundled = LocalStore(folder, model_key=version_key("1.0.0"), kind="bundled")
        put(folder, version_key("2.0.0"), b"model")

        with pytest.raises(VersionExists):
            bundled.promote("2.0.0")


class TestChanges:
    def test_bytes_that_were_replaced_within_one_tick_of_the_clock_are_seen(
        self, folder: Path, store: LocalStore
    ) -> None:
        path = put(folder, MODEL_KEY, b"model A")
        before = store.latest()

        path.write_bytes(b"model B")
        os.utime(path, ns=(0, int(before.modified_at.timestamp()) * 1_000_000_000))

        assert store.latest().etag != before.etag

    def test_the_same_bytes_in_a_new_file_are_the_same_model(self, folder: Path, store: LocalStore) -> None:
        put(folder, MODEL_KEY, b"model")
        before = store.latest()

        put(folder, MODEL_KEY, b"model", age_seconds=5)

        assert store.latest().identity == before.identity

    def test_a_file_written_to_while_it_is_read_is_an_error(
        self, folder: Path, store: LocalStore, destination: Path
    ) -> None:
        put(folder, MODEL_KEY, b"o" * 3_000_000)
        model = store.latest()
        put(folder, MODEL_KEY, b"o" * 2_999_999 + b"x")

        with pytest.raises(ModelStoreUnavailable) as caught:
            store.download(model, destination, max_bytes=3_000_000, deadline=time.monotonic() + 10)

        assert caught.value.reason == "replaced"
        assert not destination.exists()


class TestMemory:
    def test_a_file_is_read_once_when_it_has_settled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wine_api.serving.stores.local.SETTLED_AFTER_NS", -1)
        readings: list[bytes] = []
        memory = Memory(lambda file: readings.append(file.read()))

        with put(tmp_path, "file", b"content").open("rb") as file:
            memory.of("file", file)
            memory.of("file", file)

        assert readings == [b"content"]

    def test_a_file_that_has_only_just_changed_is_read_again(self, tmp_path: Path) -> None:
        readings: list[bytes] = []
        memory = Memory(lambda file: readings.append(file.read()))

        with put(tmp_path, "file", b"content").open("rb") as file:
            memory.of("file", file)
            memory.of("file", file)

        assert len(readings) == 2

    def test_a_file_that_was_replaced_is_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wine_api.serving.stores.local.SETTLED_AFTER_NS", -1)
        memory = Memory(lambda file: file.read())
        with put(tmp_path, "old", b"old").open("rb") as file:
            memory.of("key", file)

        with put(tmp_path, "new", b"new").open("rb") as file:
            found = memory.of("key", file)

        assert found == b"new"


class TestLinks:
    def test_links_inside_the_folder_are_followed(self, folder: Path, store: LocalStore) -> None:
        put(folder, version_key("1.0"), b"model")
        (folder / "models/latest").symlink_to("1.0")

        assert store.latest().size == len(b"model")

    def test_the_folder_itself_may_be_a_link_that_moves(self, tmp_path: Path) -> None:
        put(tmp_path / "first", MODEL_KEY, b"first")
        put(tmp_path / "second", MODEL_KEY, b"the second")
        link = tmp_path / "current"
        link.symlink_to("first")
        store = LocalStore(link, model_key=MODEL_KEY)
        before = store.latest()

        link.unlink()
        link.symlink_to("second")

        assert (before.size, store.latest().size) == (5, 10)

    @pytest.mark.parametrize("target", ["../../../outside", "/etc/hostname", "loop"])
    def test_a_link_out_of_the_folder_leads_nowhere(
        self, folder: Path, store: LocalStore, tmp_path: Path, target: str
    ) -> None:
        put(tmp_path, "outside", b"secret")
        path = put(folder, MODEL_KEY, b"model").with_name("loop")
        path.symlink_to("loop")
        (folder / MODEL_KEY).unlink()
        (folder / MODEL_KEY).symlink_to(target)

        with pytest.raises(ModelVersionNotFound):
            store.latest()

    def test_promoting_does_not_write_through_a_link_into_a_version(self, folder: Path, store: LocalStore) -> None:
        put(folder, version_key("1.0"), b"model")
        put(folder, version_key("2.0"), b"another")
        (folder / "models/latest").symlink_to("1.0")

        with pytest.raises(ModelStoreUnavailable) as caught:
            store.promote("2.0")

        assert caught.value.reason == "forbidden"
        assert (folder / version_key("1.0")).read_bytes() == b"model"

    def test_promoting_replaces_a_link_by_a_file(self, folder: Path, store: LocalStore) -> None:
        put(folder, version_key("1.0"), b"model")
        put(folder, version_key("2.0"), b"another")
        (folder / "models/latest").mkdir()
        (folder / MODEL_KEY).symlink_to(f"../1.0/{ARTIFACT_NAME}")

        store.promote("2.0")

        assert (folder / MODEL_KEY).read_bytes() == b"another"
        assert (folder / version_key("1.0")).read_bytes() == b"model"

    @pytest.mark.parametrize("key", ["../outside", "/etc/hostname", "models/../../outside", "x" * 5000, "models"])
    def test_a_key_that_leads_out_of_the_folder_leads_nowhere(self, folder: Path, tmp_path: Path, key: str) -> None:
        put(tmp_path, "outside", b"secret")
        put(folder, version_key("1.0"), b"model")

        with pytest.raises(ModelVersionNotFound):
            LocalStore(folder, model_key=key).latest()

    @pytest.mark.parametrize("key", ["../outside/model", "/tmp/outside/model"])
    def test_nothing_is_promoted_out_of_the_folder(self, folder: Path, key: str) -> None:
        put(folder, version_key("1.0"), b"model")

        with pytest.raises(ModelStoreUnavailable) as caught:
            LocalStore(folder, model_key=key).promote("1.0")

        assert caught.value.reason == "forbidden"


class TestTrouble:
    def test_a_folder_that_denies_access_is_named_without_its_path(self, folder: Path, store: LocalStore) -> None:
        put(folder, MODEL_KEY, b"model")
        folder.chmod(0)

        with as_a_user_without_rights(), pytest.raises(ModelStoreUnavailable) as caught:
            store.latest()

        folder.chmod(0o700)
        assert caught.value.reason == "forbidden"
        assert str(folder) not in caught.value.detail

    def test_a_file_that_cannot_be_read_is_an_error_of_the_store(self) -> None:
        # Linux opens this file for everybody, and refuses to read its first page.
        store = LocalStore(Path("/proc/self"), model_key="mem")

        with pytest.raises(ModelStoreUnavailable) as caught:
            store.latest()

        assert caught.value.reason == "io_error"

    def test_a_named_pipe_is_not_a_model(self, folder: Path, store: LocalStore) -> None:
        (folder / MODEL_KEY).parent.mkdir(parents=True)
        os.mkfifo(folder / MODEL_KEY)

        with pytest.raises(ModelVersionNotFound):
            store.latest()

    @pytest.mark.parametrize("name", ["file", "missing", "file/below"])
    def test_what_is_not_a_folder_is_a_missing_folder(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_bytes(b"not a folder")

        with pytest.raises(ModelStoreUnavailable) as caught:
            LocalStore(tmp_path / name, model_key=MODEL_KEY).latest()

        assert caught.value.reason == "missing_folder"


class TestPublishing:
    def test_a_publish_that_breaks_off_leaves_no_version(self, folder: Path, store: LocalStore, tmp_path: Path) -> None:
        artifact = put(tmp_path, "artifact", b"x" * 3_000_000)

        with pytest.raises(KeyboardInterrupt):
            store.put_version("1.0", artifact, b"card", None, progress=interrupt)

        assert os.listdir(folder / "models") == []

    def test_what_is_published_can_be_read_by_the_service_of_another_user(
        self, folder: Path, store: LocalStore, tmp_path: Path
    ) -> None:
        artifact = put(tmp_path, "artifact", b"model")
        artifact.chmod(0o600)
        before = os.umask(0o022)

        store.put_version("1.0", artifact, b"card", None)
        store.promote("1.0")

        os.umask(before)
        assert (folder / "models/1.0").stat().st_mode & 0o777 == 0o755
        assert (folder / version_key("1.0")).stat().st_mode & 0o777 == 0o644
        assert (folder / MODEL_KEY).stat().st_mode & 0o777 == 0o644

    def test_a_version_that_appeared_meanwhile_is_not_overwritten(
        self, folder: Path, store: LocalStore, tmp_path: Path
    ) -> None:
        artifact = put(tmp_path, "artifact", b"model")

        with pytest.raises(VersionExists):
            store.put_version(
                "1.0", artifact, b"card", None, progress=lambda _: put(folder, version_key("1.0"), b"of another")
            )

        assert (folder / version_key("1.0")).read_bytes() == b"of another"
        assert os.listdir(folder / "models") == ["1.0"]


def interrupt(_: int) -> None:
    raise KeyboardInterrupt
