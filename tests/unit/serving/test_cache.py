"""Downloaded models on this host's disk: whole, under their digests, or not at all."""

from __future__ import annotations

import os
import stat
import time

import pytest

from tests.fakes import FakeStore, digest_of
from wine_api.errors import ModelRejected, ModelStoreUnavailable
from wine_api.serving.cache import ModelCache

CONTENT = b"a model"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def spare(tmp_path):
    return tmp_path / "spare"


@pytest.fixture
def cache(folder, spare):
    return ModelCache(folder, spare)


@pytest.fixture
def store():
    return FakeStore()


def fetch(cache, store, model, *, max_bytes=1000):
    return cache.fetch(store, model, max_bytes=max_bytes, deadline=time.monotonic() + 30)


def entries(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_model_is_kept_under_its_digest(cache, store, folder):
    model = store.upload(CONTENT, version="1.0", card=b"{}", signature=b"sig")

    artifact = fetch(cache, store, model)

    assert entries(folder) == [digest_of(CONTENT)]
    assert artifact.path.read_bytes() == CONTENT
    assert artifact.digest == digest_of(CONTENT)
    assert artifact.size == len(CONTENT)
    assert (artifact.version, artifact.identity) == ("1.0", model.identity)
    assert (artifact.card_text, artifact.signature) == (b"{}", b"sig")
    assert artifact.source == store.location(model)


def test_a_plain_upload_is_called_by_its_digest(cache, store):
    artifact = fetch(cache, store, store.upload(CONTENT))

    assert artifact.version == digest_of(CONTENT)[:12]
    assert artifact.card_text is None
    assert artifact.signature is None


def test_what_was_fetched_is_found_again(cache, store, folder, spare):
    artifact = fetch(cache, store, store.upload(CONTENT, version="1.0", card=b"{}"))

    assert cache.find(artifact.digest) == artifact
    assert ModelCache(folder, spare).find(artifact.digest) == artifact
    assert cache.find_version("1.0") == artifact


@pytest.mark.parametrize("digest", ["0" * 64, "", "..", "."])
def test_what_was_never_fetched_is_not_found(cache, digest):
    assert cache.find(digest) is None


def test_an_unknown_version_is_not_found(cache, store):
    fetch(cache, store, store.upload(CONTENT, version="1.0"))

    assert cache.find_version("2.0") is None


@pytest.mark.parametrize(
    "content", [b"", CONTENT[:-1], CONTENT + b"x", b"another"], ids=["empty", "cut", "more", "other"]
)
def test_a_file_that_changed_on_disk_is_not_found(cache, store, content):
    artifact = fetch(cache, store, store.upload(CONTENT))

    artifact.path.write_bytes(content)

    assert cache.find(artifact.digest) is None


def test_a_file_that_is_gone_is_not_found(cache, store):
    artifact = fetch(cache, store, store.upload(CONTENT))

    artifact.path.unlink()

    assert cache.find(artifact.digest) is None


@pytest.mark.parametrize("origin", [b"", b"{", b"{}", b"[]"], ids=["empty", "cut", "no keys", "a list"])
def test_a_model_whose_origin_cannot_be_read_is_not_found(cache, store, origin):
    artifact = fetch(cache, store, store.upload(CONTENT, version="1.0"))

    artifact.path.with_name("origin.json").write_bytes(origin)

    assert cache.find(artifact.digest) is None
    assert cache.find_version("1.0") is None


def test_a_damaged_file_is_replaced_by_the_next_fetch(cache, store):
    model = store.upload(CONTENT)
    fetch(cache, store, model).path.write_bytes(b"damaged")

    fetch(cache, store, model)

    assert cache.find(digest_of(CONTENT)).path.read_bytes() == CONTENT


def test_the_same_bytes_can_come_under_another_version(cache, store, folder):
    fetch(cache, store, store.upload(CONTENT, version="1.0", card=b"old"))

    artifact = fetch(cache, store, store.upload(CONTENT, version="2.0", card=b"new"))

    assert entries(folder) == [digest_of(CONTENT)]
    assert (artifact.version, artifact.card_text) == ("2.0", b"new")
    assert cache.find(digest_of(CONTENT)) == artifact


def test_the_same_bytes_without_card_and_signature_have_none(cache, store):
    fetch(cache, store, store.upload(CONTENT, version="1.0", card=b"card", signature=b"signature"))

    artifact = fetch(cache, store, store.upload(CONTENT))

    assert (artifact.card_text, artifact.signature) == (None, None)


@pytest.mark.parametrize(
    "fault",
    [ModelStoreUnavailable("timeout", "Too slow."), ModelRejected("size", "too_large", "Too large.")],
    ids=["timeout", "too large"],
)
def test_a_download_that_fails_leaves_nothing_behind(cache, store, folder, spare, fault):
    model = store.upload(CONTENT)
    store.away = fault

    with pytest.raises(type(fault)):
        fetch(cache, store, model)

    assert entries(folder) == entries(spare) == []


def test_a_model_that_is_too_large_leaves_nothing_behind(cache, store, folder):
    with pytest.raises(ModelRejected):
        fetch(cache, store, store.upload(CONTENT), max_bytes=3)

    assert entries(folder) == []


def test_the_spare_folder_is_used_when_the_cache_cannot_be_written(cache, store, folder, spare):
    folder.symlink_to(folder.with_name("nowhere"))

    artifact = fetch(cache, store, store.upload(CONTENT, version="1.0"))

    assert entries(spare) == [digest_of(CONTENT)]
    assert cache.find(artifact.digest) == artifact


def test_a_model_that_fits_nowhere_is_a_fault_of_the_disk(cache, store, folder, spare):
    folder.symlink_to(folder.with_name("nowhere"))
    spare.symlink_to(spare.with_name("nowhere"))

    with pytest.raises(ModelStoreUnavailable) as refusal:
        fetch(cache, store, store.upload(CONTENT))

    assert refusal.value.reason == "disk_error"


def test_pruning_keeps_the_newest_and_what_is_needed(cache, store):
    contents = [f"model {number}".encode() for number in range(8)]
    for age, content in enumerate(contents):
        artifact = fetch(cache, store, store.upload(content))
        os.utime(artifact.path.parent, (1_000_000 + age, 1_000_000 + age))

    cache.prune(keep=[digest_of(contents[0])])

    kept = [content for content in contents if cache.find(digest_of(content))]
    assert kept == [contents[0], *contents[3:]]


def test_what_a_killed_worker_left_is_dropped_after_a_while(cache, store, folder):
    fetch(cache, store, store.upload(CONTENT))
    abandoned, under_way = folder / ".arriving-old", folder / ".arriving-new"
    abandoned.mkdir()
    under_way.mkdir()
    os.utime(abandoned, (0, 0))

    fetch(cache, store, store.upload(b"another"))

    assert not abandoned.exists()
    assert under_way.exists()


def test_the_cache_is_private(cache, store, folder):
    fetch(cache, store, store.upload(CONTENT))

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
