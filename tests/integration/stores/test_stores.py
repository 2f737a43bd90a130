"""What every store promises, whatever it is made of."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from tests.integration.stores.shelves import MODEL_KEY, Shelf, card_for
from wine_api.errors import ModelRejected, ModelStoreUnavailable, ModelVersionNotFound
from wine_api.serving.stores.base import (
    CARD_NAME,
    SIGNATURE_NAME,
    InvalidVersionName,
    VersionExists,
    version_key,
)

BAD_NAMES = pytest.mark.parametrize(
    "name",
    ["", "../latest", "latest", "1.0/", "a\0b", "x" * 100_000],
    ids=["empty", "parent", "latest", "slash", "NUL", "too long"],
)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.joblib"
    path.write_bytes(b"artifact" * 1000)
    return path


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "arrived"


def soon() -> float:
    return time.monotonic() + 10


class TestLooking:
    def test_sees_what_lies_under_the_key(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        model = shelf.store.latest()

        assert (model.key, model.version, model.size) == (MODEL_KEY, "1.0", 5)
        assert abs(time.time() - model.modified_at.timestamp()) < 60

    def test_sees_the_same_twice_when_nothing_changed(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        first = shelf.store.latest()
        second = shelf.store.latest()

        assert first == second

    def test_sees_that_the_object_was_replaced_by_one_of_the_same_size(self, shelf: Shelf) -> None:
        shelf.put(MODEL_KEY, b"model A")
        before = shelf.store.latest()

        shelf.put(MODEL_KEY, b"model B")

        assert shelf.store.latest().identity != before.identity

    def test_a_plain_upload_is_not_called_by_the_name_of_a_version(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        shelf.put(MODEL_KEY, b"uploaded by hand")

        model = shelf.store.latest()
        assert model.version == model.version_id
        assert model.published_as is None

    def test_says_where_a_model_is_without_a_path_of_this_machine(self, shelf: Shelf, tmp_path: Path) -> None:
        shelf.publish("1.0", b"model")

        location = shelf.store.location(shelf.store.latest())

        assert set(location) == {"kind", "bucket", "key", "version_id"}
        assert location["kind"] == shelf.store.kind
        assert location["key"] == MODEL_KEY
        assert str(tmp_path) not in str(location)

    def test_an_empty_store_has_no_latest_model(self, shelf: Shelf) -> None:
        with pytest.raises(ModelVersionNotFound):
            shelf.store.latest()

    def test_an_empty_model_is_seen_as_empty(self, shelf: Shelf) -> None:
        shelf.put(MODEL_KEY, b"")

        assert shelf.store.latest().size == 0

    @pytest.mark.parametrize(
        "question",
        [
            lambda store: store.latest(),
            lambda store: store.find("1.0"),
            lambda store: store.versions(),
            lambda store: store.promote("1.0"),
        ],
        ids=["latest", "find", "versions", "promote"],
    )
    def test_a_store_that_does_not_exist_is_not_an_empty_one(self, shelf: Shelf, question) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ModelStoreUnavailable) as caught:
            question(shelf.missing)

        assert caught.value.reason in ("missing_bucket", "missing_folder")


class TestFinding:
    def test_finds_a_version_that_is_not_the_latest(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"old")
        shelf.publish("2.0", b"new one")

        model = shelf.store.find("1.0")

        assert (model.key, model.version, model.size) == (version_key("1.0"), "1.0", 3)

    def test_the_folder_of_a_version_is_found_under_its_own_key(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        assert shelf.store.find("1.0").key == version_key("1.0")

    def test_a_deleted_version_is_not_found(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"old")
        shelf.publish("2.0", b"new")

        shelf.delete(version_key("1.0"))

        with pytest.raises(ModelVersionNotFound):
            shelf.store.find("1.0")

    @BAD_NAMES
    def test_a_name_that_cannot_be_a_version_is_not_found(self, shelf: Shelf, name: str) -> None:
        shelf.publish("1.0", b"model")

        with pytest.raises(ModelVersionNotFound):
            shelf.store.find(name)

    def test_a_version_that_was_never_there_is_not_found(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        with pytest.raises(ModelVersionNotFound):
            shelf.store.find("1.1")


class TestListing:
    def test_lists_versions_newest_first(self, shelf: Shelf) -> None:
        shelf.publish("1.9", b"nine")
        shelf.publish("1.10", b"ten")

        assert [model.version for model in shelf.store.versions()] == ["1.10", "1.9"]

    def test_shows_a_version_as_find_does(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        assert shelf.store.versions() == [shelf.store.find("1.0")]

    def test_what_holds_no_artifact_is_not_a_version(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")
        shelf.put(version_key("2.0", CARD_NAME), b"{}")
        shelf.put("models/README.md", b"read me")
        shelf.put("models/deep/er/wine_quality_model.joblib", b"model")
        shelf.put("elsewhere/3.0/wine_quality_model.joblib", b"model")
        shelf.put("models/.hidden/wine_quality_model.joblib", b"model")

        assert [model.version for model in shelf.store.versions()] == ["1.0"]

    def test_an_empty_store_has_no_versions(self, shelf: Shelf) -> None:
        assert shelf.store.versions() == []


class TestDownloading:
    def test_brings_every_byte(self, shelf: Shelf, destination: Path) -> None:
        content = bytes(range(256)) * 4000
        shelf.put(MODEL_KEY, content)

        shelf.store.download(shelf.store.latest(), destination, max_bytes=len(content), deadline=soon())

        assert destination.read_bytes() == content

    def test_brings_an_empty_file(self, shelf: Shelf, destination: Path) -> None:
        shelf.put(MODEL_KEY, b"")

        shelf.store.download(shelf.store.latest(), destination, max_bytes=0, deadline=soon())

        assert destination.read_bytes() == b""

    def test_refuses_a_model_that_is_too_large(self, shelf: Shelf, destination: Path) -> None:
        shelf.put(MODEL_KEY, b"x" * 1001)

        with pytest.raises(ModelRejected) as caught:
            shelf.store.download(shelf.store.latest(), destination, max_bytes=1000, deadline=soon())

        assert (caught.value.gate, caught.value.reason) == ("size", "too_large")
        assert not destination.exists()

    @pytest.mark.parametrize("replacement", [b"x" * 50_000, b"short", b"x" * 90_000], ids=["same", "less", "more"])
    def test_never_brings_anything_but_what_was_looked_at(
        self, shelf: Shelf, destination: Path, replacement: bytes
    ) -> None:
        shelf.put(MODEL_KEY, b"o" * 50_000)
        model = shelf.store.latest()
        shelf.put(MODEL_KEY, replacement)

        arrived = _download_or_reason(shelf, model, destination)

        assert arrived in (b"o" * 50_000, "replaced")

    def test_a_model_that_was_deleted_since_is_not_found(self, shelf: Shelf, destination: Path) -> None:
        shelf.publish("1.0", b"model")
        model = shelf.store.find("1.0")
        shelf.delete(version_key("1.0"))

        assert _download_or_reason(shelf, model, destination) in (b"model", "model_version_not_found")

    def test_gives_up_when_the_deadline_has_passed(self, shelf: Shelf, destination: Path) -> None:
        shelf.put(MODEL_KEY, b"model")
        model = shelf.store.latest()

        with pytest.raises(ModelStoreUnavailable) as caught:
            shelf.store.download(model, destination, max_bytes=1000, deadline=time.monotonic() - 1)

        assert caught.value.reason == "timeout"
        assert not destination.exists()

    def test_says_when_the_disk_of_this_host_is_full(self, shelf: Shelf) -> None:
        shelf.put(MODEL_KEY, b"x" * 100_000)

        with pytest.raises(ModelStoreUnavailable) as caught:
            shelf.store.download(shelf.store.latest(), Path("/dev/full/model"), max_bytes=100_000, deadline=soon())

        assert caught.value.reason == "disk_error"

    def test_never_overwrites_a_file(self, shelf: Shelf, destination: Path) -> None:
        shelf.put(MODEL_KEY, b"model")
        destination.write_bytes(b"mine")

        with pytest.raises(ModelStoreUnavailable):
            shelf.store.download(shelf.store.latest(), destination, max_bytes=1000, deadline=soon())

        assert destination.read_bytes() == b"mine"


class TestCards:
    def test_brings_the_card_and_signature_of_a_published_version(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        model = shelf.store.find("1.0")

        assert shelf.store.card(model) == card_for(b"model")
        assert shelf.store.signature(model) == b"signed"

    def test_brings_the_card_of_the_version_that_latest_is_a_copy_of(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")

        model = shelf.store.latest()

        assert shelf.store.card(model) == card_for(b"model")
        assert shelf.store.signature(model) == b"signed"

    def test_a_plain_upload_has_no_card(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model")
        shelf.put(MODEL_KEY, b"uploaded by hand")

        model = shelf.store.latest()

        assert shelf.store.card(model) is None
        assert shelf.store.signature(model) is None

    def test_an_unsigned_version_has_no_signature(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"model", signature=None)

        assert shelf.store.signature(shelf.store.find("1.0")) is None

    def test_a_version_without_a_card_has_none(self, shelf: Shelf) -> None:
        shelf.put(version_key("1.0"), b"model")

        assert shelf.store.card(shelf.store.find("1.0")) is None

    @pytest.mark.parametrize(
        ("name", "question", "gate"),
        [
            (CARD_NAME, lambda store, model: store.card(model), "card"),
            (SIGNATURE_NAME, lambda store, model: store.signature(model), "signature"),
        ],
        ids=["card", "signature"],
    )
    def test_refuses_one_that_is_too_large(self, shelf: Shelf, name: str, question, gate: str) -> None:  # type: ignore[no-untyped-def]
        shelf.publish("1.0", b"model")
        shelf.put(version_key("1.0", name), b" " * (1024 * 1024 + 1))

        with pytest.raises(ModelRejected) as caught:
            question(shelf.store, shelf.store.find("1.0"))

        assert (caught.value.gate, caught.value.reason) == (gate, "too_large")


class TestPublishing:
    def test_a_published_version_can_be_found_and_read(self, shelf: Shelf, artifact: Path, destination: Path) -> None:
        shelf.store.put_version("1.0", artifact, b"card", b"signature")

        model = shelf.store.find("1.0")
        shelf.store.download(model, destination, max_bytes=model.size, deadline=soon())
        assert destination.read_bytes() == artifact.read_bytes()
        assert shelf.store.card(model) == b"card"
        assert shelf.store.signature(model) == b"signature"

    def test_publishing_does_not_change_what_is_served(self, shelf: Shelf, artifact: Path) -> None:
        shelf.publish("1.0", b"model")
        before = shelf.store.latest()

        shelf.store.put_version("2.0", artifact, b"card", None)

        assert shelf.store.latest() == before

    def test_promoting_serves_the_version_under_its_name(self, shelf: Shelf, artifact: Path, destination: Path) -> None:
        shelf.publish("1.0", b"model")
        shelf.store.put_version("2.0", artifact, card_for(artifact.read_bytes()), None)

        promoted = shelf.store.promote("2.0")

        shelf.store.download(promoted, destination, max_bytes=promoted.size, deadline=soon())
        assert promoted == shelf.store.latest()
        assert (promoted.key, promoted.version) == (MODEL_KEY, "2.0")
        assert destination.read_bytes() == artifact.read_bytes()

    def test_promoting_an_older_version_goes_back(self, shelf: Shelf) -> None:
        shelf.publish("1.0", b"old")
        shelf.publish("2.0", b"new")

        shelf.store.promote("1.0")

        assert shelf.store.latest().version == "1.0"

    def test_a_version_is_never_overwritten(self, shelf: Shelf, artifact: Path) -> None:
        shelf.publish("1.0", b"model")
        before = shelf.store.find("1.0")

        with pytest.raises(VersionExists):
            shelf.store.put_version("1.0", artifact, b"another card", None)

        assert shelf.store.find("1.0") == before
        assert shelf.store.card(before) == card_for(b"model")

    def test_not_even_by_itself(self, shelf: Shelf, artifact: Path) -> None:
        shelf.store.put_version("1.0", artifact, b"card", None)

        with pytest.raises(VersionExists):
            shelf.store.put_version("1.0", artifact, b"card", None)

    @BAD_NAMES
    def test_refuses_a_name_that_cannot_be_a_version(self, shelf: Shelf, artifact: Path, name: str) -> None:
        with pytest.raises(InvalidVersionName):
            shelf.store.put_version(name, artifact, b"card", None)

    @pytest.mark.parametrize("name", ["3.0", "../latest", "latest"])
    def test_promotes_nothing_that_is_not_there(self, shelf: Shelf, name: str) -> None:
        shelf.publish("1.0", b"model")
        before = shelf.store.latest()

        with pytest.raises(ModelVersionNotFound):
            shelf.store.promote(name)

        assert shelf.store.latest() == before

    def test_reports_how_far_the_upload_is(self, shelf: Shelf, tmp_path: Path) -> None:
        artifact = tmp_path / "large.joblib"
        artifact.write_bytes(b"x" * 3_000_000)
        steps: list[int] = []

        shelf.store.put_version("1.0", artifact, b"card", None, progress=steps.append)

        assert sum(steps) == 3_000_000
        assert len(steps) > 1
        assert min(steps) > 0

    def test_does_not_publish_into_a_store_that_does_not_exist(self, shelf: Shelf, artifact: Path) -> None:
        with pytest.raises(ModelStoreUnavailable) as caught:
            shelf.missing.put_version("1.0", artifact, b"card", None)

        assert caught.value.reason in ("missing_bucket", "missing_folder")

    def test_an_artifact_that_is_not_there_leaves_nothing_behind(self, shelf: Shelf, tmp_path: Path) -> None:
        with pytest.raises(ModelStoreUnavailable):
            shelf.store.put_version("1.0", tmp_path / "missing.joblib", b"card", None)

        assert shelf.store.versions() == []


def _download_or_reason(shelf: Shelf, model, destination: Path) -> bytes | str:  # type: ignore[no-untyped-def]
    try:
        shelf.store.download(model, destination, max_bytes=1_000_000, deadline=math.inf)
    except ModelStoreUnavailable as error:
        return error.reason
    except ModelVersionNotFound as error:
        return error.code
    return destination.read_bytes()
