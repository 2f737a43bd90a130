"""Names and keys."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wine_api.serving.stores.base import (
    InvalidVersionName,
    StoredModel,
    is_version_name,
    newest_first,
    require_version_name,
    version_key,
    version_of,
)

TODAY = datetime(2026, 11, 23, tzinfo=UTC)
YESTERDAY = datetime(2026, 11, 22, tzinfo=UTC)


def model(version: str | None, *, version_id: str | None = None, modified_at: datetime = TODAY) -> StoredModel:
    return StoredModel(version_key(str(version)), version, "etag", version_id, 1, modified_at)


@pytest.mark.parametrize("name", ["1", "1.0.0", "2026-11-23", "v1_rc.1", "x" * 64, "latest.1", "null", "1..2"])
def test_these_can_be_versions(name: str) -> None:
    assert is_version_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../1.0",
        "1.0/../2.0",
        "/etc/passwd",
        "1.0/",
        "1\\0",
        "a\0b",
        "a\nb",
        "1.0\n",
        " 1.0",
        "a b",
        ".hidden",
        "-flag",
        "é",
        "١",
        "\ud800",
        "%2e%2e",
        "x" * 65,
        "latest",
    ],
    ids=ascii,
)
def test_these_cannot_be_versions(name: str) -> None:
    with pytest.raises(InvalidVersionName):
        require_version_name(name)


@pytest.mark.parametrize(
    ("key", "version"),
    [
        ("models/1.0/wine_quality_model.joblib", "1.0"),
        ("models/latest/wine_quality_model.joblib", None),
        ("models/1.0/model_card.json", None),
        ("models/1.0/deeper/wine_quality_model.joblib", None),
        ("models/../wine_quality_model.joblib", None),
        ("1.0/wine_quality_model.joblib", None),
        ("wine.joblib", None),
        ("", None),
    ],
)
def test_only_the_artifact_of_a_version_folder_is_a_version(key: str, version: str | None) -> None:
    assert version_of(key) == version


def test_sorts_by_age_before_number() -> None:
    models = [model("9", modified_at=YESTERDAY), model("1.9"), model("1.10"), model("1.10-rc1")]

    assert [found.version for found in newest_first(models)] == ["1.10-rc1", "1.10", "1.9", "9"]


def test_a_plain_upload_has_no_card_even_where_it_has_a_version_id() -> None:
    assert model("1.0", version_id="abc").published_as == "1.0"
    assert model("abc", version_id="abc").published_as is None
    assert model(None).published_as is None


def test_the_version_id_identifies_an_object_better_than_its_bytes() -> None:
    assert model("1.0", version_id="abc").identity == "abc"
    assert model("1.0").identity == "etag"
