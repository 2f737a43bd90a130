"""The short way to read a request accepts nothing that the schemas refuse, and reads the same numbers, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.models import WINE, WINE_BY_NAME
from wine_api.api.json import parse
from wine_api.errors import WineError
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest
from wine_api.schemas.well_formed import read_wine, read_wines
from wine_api.serving.wine import FEATURE_NAMES

MOST_ROWS = 3
ONE, MANY = PredictRequest(), PredictBatchRequest()

thoroughly = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck], database=None
)

# JSON text, as callers write it, and as nobody should.
sound_numbers = st.one_of(
    st.floats(0, 14).map(repr),
    st.integers(0, 14).map(str),
    st.from_regex(r"(0|[1-9])(\.[0-9]{1,25})?([eE](-[0-9]{1,3}|\+0))?", fullmatch=True),
)
odd_values = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        (
            *("-0", "-0.0", "0e9", "1e400", "1e-400", "-1", "9007199254740993", "14.000000000000002"),
            *("18446744073709551615", "18446744073709551616", "9" * 30, "9" * 400),
            *("01", "+1", ".5", "5.", "5e", "5 5", "0x1", "NaN", "Infinity", "\u0665", ""),
            *("true", "false", "null", '"5"', "[5]", "[]", "{}", '{"a": 1}'),
        )
    ),
)
odd_keys = st.sampled_from(
    ("", "\\u0070H", "alcohol\\u0000", 'p\\"H', 'p"H', "pH ", "P_h", "color", "features", "pH", "alcohol")
)
spaces = st.sampled_from(("", "", "", " ", "\n\t "))
odd_spaces = st.sampled_from(("", "\u00a0", "\ufeff", "\x00", "//", ","))


def spelled(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from((name, name.title(), name.replace("_", " "), name.replace("sulf", "sulph")))


@st.composite
def arrays(draw: st.DrawFn, odd: bool) -> str:
    row = [draw(sound_numbers) for _ in FEATURE_NAMES]
    if odd:
        place = draw(st.integers(0, 11))
        row[place : place + draw(st.integers(0, 1))] = draw(st.lists(odd_values, max_size=2))
    return f"[{draw(spaces)}{', '.join(row)}]"


@st.composite
def objects(draw: st.DrawFn, odd: bool) -> str:
    members = [(draw(spelled(name)), draw(sound_numbers)) for name in draw(st.permutations(FEATURE_NAMES))]
    if odd:
        place = draw(st.integers(0, 11))
        key, value = draw(odd_keys | st.sampled_from(FEATURE_NAMES)), draw(sound_numbers | odd_values)
        members[place : place + draw(st.integers(0, 1))] = [(key, value)]
    return "{" + ", ".join(f'"{key}": {value}' for key, value in members) + "}"


@st.composite
def bodies(draw: st.DrawFn, forms: tuple[str, str], wines: Callable[[bool], st.SearchStrategy[str]]) -> bytes:
    """Return a request that is sound, or has something odd in its wines or around them."""
    odd = draw(st.sampled_from(("nothing", "wines", "around")))
    keys = [draw(st.sampled_from(forms))]
    space = spaces
    if odd == "around":
        keys = draw(st.lists(st.sampled_from((*forms, "request_id", f"{forms[0]}\\u0000")), max_size=2))
        space = spaces | odd_spaces
    members = ", ".join(f'"{key}"{draw(space)}: {draw(wines(odd == "wines"))}' for key in keys)
    return f"{draw(space)}{{{members}}}{draw(space)}".encode("utf-8", "surrogatepass")


def wines(odd: bool) -> st.SearchStrategy[str]:
    return arrays(odd) | objects(odd)


def lists_of_wines(odd: bool) -> st.SearchStrategy[str]:
    """Return many wines in one form, or in both, or what is no list."""
    sound = [st.lists(row, min_size=1, max_size=MOST_ROWS) for row in (arrays(False), objects(False), wines(False))]
    if not odd:
        return st.one_of(sound).map(as_list)
    with_odd_one = st.tuples(st.one_of(sound), wines(True)).map(lambda some: as_list([*some[0], some[1]]))
    return with_odd_one | st.lists(wines(False), max_size=2 * MOST_ROWS).map(as_list) | odd_values


def as_list(rows: Sequence[str]) -> str:
    return f"[{', '.join(rows)}]"


def by_the_schema(schema, body):
    """Return what the schema reads, or None if it refuses the body."""
    try:
        return schema.load(parse(body))
    except WineError:
        return None


def same_bits(matrix, other) -> bool:
    return other is not None and matrix.dtype == other.dtype == np.float64 and matrix.tobytes() == other.tobytes()


@thoroughly
@given(body=bodies(PredictRequest.forms, wines))
@example(body=b'{"features": [0, 0, 0, 0, 0, 0, 0, 0, -0, 0, 18446744073709551615]}')
@example(body=b'{"features": [0, 0, 0, 0, 18446744073709551616, 0, 0, 0, 0, 0, 9007199254740993]}')
@example(body=b'{"features": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "features": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]}')
def test_one_wine_is_read_as_the_schema_reads_it_or_not_at_all(body):
    wine = read_wine(body)

    assert wine is None or same_bits(wine, by_the_schema(ONE, body))


@thoroughly
@given(body=bodies(PredictBatchRequest.forms, lists_of_wines))
def test_many_wines_are_read_as_the_schema_reads_them_or_not_at_all(body):
    read = read_wines(body, MOST_ROWS)

    assert read is None or (len(read) <= MOST_ROWS and same_bits(read, by_the_schema(MANY, body)))


@thoroughly
@given(body=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_what_is_no_wine_is_not_read(body):
    assume(by_the_schema(ONE, body) is None)

    assert read_wine(body) is None
    assert read_wines(body, MOST_ROWS) is None


@pytest.mark.parametrize(
    "wine",
    [WINE, WINE_BY_NAME, dict(reversed(WINE_BY_NAME.items())), [round(value) for value in WINE]],
    ids=["array", "object", "object in another order", "whole numbers"],
)
def test_what_nearly_everybody_sends_takes_the_short_way(wine):
    form = "features" if isinstance(wine, list) else "wine_features"

    assert read_wine(json.dumps({form: wine}).encode()) is not None
    assert read_wines(json.dumps({f"{form}_list": [wine] * MOST_ROWS}).encode(), MOST_ROWS) is not None


def test_more_rows_than_allowed_do_not():
    assert read_wines(json.dumps({"features_list": [WINE] * (MOST_ROWS + 1)}).encode(), MOST_ROWS) is None
