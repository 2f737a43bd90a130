"""The words of the domain."""

from __future__ import annotations

import pytest

from wine_api.serving.wine import FEATURE_COUNT, FEATURE_NAMES, FEATURES, feature_name


def test_the_order_is_that_of_the_published_tables():
    assert FEATURE_NAMES == (
        "fixed_acidity",
        "volatile_acidity",
        "citric_acid",
        "residual_sugar",
        "chlorides",
        "free_sulfur_dioxide",
        "total_sulfur_dioxide",
        "density",
        "pH",
        "sulphates",
        "alcohol",
    )
    assert FEATURE_COUNT == 11


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature_says_what_it_is(feature):
    assert feature.unit
    assert feature.description
    assert feature.minimum <= feature.example <= (feature.maximum or feature.example)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("pH", "pH"),
        ("ph", "pH"),
        ("PH", "pH"),
        ("p H", "pH"),
        ("fixed acidity", "fixed_acidity"),
        ("Fixed_Acidity", "fixed_acidity"),
        ("fixed.acidity", "fixed_acidity"),
        ("fixed-acidity", "fixed_acidity"),
        ("FIXED  ACIDITY", "fixed_acidity"),
        (" fixed acidity\t", "fixed_acidity"),
        ("fixedAcidity", "fixed_acidity"),
        ("freeSulphurDioxide", "free_sulfur_dioxide"),
        ("free sulphur dioxide", "free_sulfur_dioxide"),
        ("total_sulphur_dioxide", "total_sulfur_dioxide"),
        ("TotalSulfurDioxide", "total_sulfur_dioxide"),
        ("sulfates", "sulphates"),
        ("Sulphates", "sulphates"),
        ("ALCOHOL", "alcohol"),
    ],
)
def test_spellings_are_understood(spelling, name):
    assert feature_name(spelling) == name


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_every_name_is_a_spelling_of_itself(name):
    assert feature_name(name) == name


@pytest.mark.parametrize(
    "spelling", ["", " ", "_", "quality", "acidity", "alcohol2", "alcoho1", "pHs", "\ud800", "ｐＨ", "a" * 100_000]
)
def test_anything_else_is_no_feature(spelling):
    assert feature_name(spelling) is None
