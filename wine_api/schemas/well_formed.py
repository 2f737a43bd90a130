"""Requests that are beyond doubt, read without marshmallow.

What the schemas accept is what is accepted. Here is only a shorter way to the same matrix for what nearly everybody
sends: plain numbers in one of the two forms. Whatever is unusual in any way is left to the schemas, which say what is
wrong with it, if anything is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter, le
from typing import Any

import numpy as np
import orjson

from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest
from wine_api.serving.wine import FEATURE_COUNT, FEATURE_NAMES, FEATURES, Matrix, feature_name

_BY_POSITION, _BY_NAME = PredictRequest.forms
_MANY_BY_POSITION, _MANY_BY_NAME = PredictBatchRequest.forms

# A wine takes 400 bytes. Whoever sends names of any length must not fill the memory of what they mean.
_LONGEST_WINE = 2000
_ORDERS = 256

_NUMBERS = frozenset({int, float})
_MINIMA = [feature.minimum for feature in FEATURES]
_MAXIMA = [math.inf if feature.maximum is None else feature.maximum for feature in FEATURES]
_MINIMA_OF_MANY, _MAXIMA_OF_MANY = np.array(_MINIMA), np.array(_MAXIMA)

# A string has two quotes. If a document has no more of them than its keys need, then none of its keys came twice:
# orjson keeps the last of those that are equal, and says nothing.
_QUOTES_OF_FORM = 2
_QUOTES_OF_NAMES = 2 * FEATURE_COUNT


def read_wine(body: bytes) -> Matrix | None:
    """Return the wine in *body*, shape (1, 11), or None when that is for `PredictRequest` to say."""
    if len(body) > _LONGEST_WINE:
        return None
    form, wine = _only_member(body)
    row: Sequence[Any]
    if type(wine) is list and form == _BY_POSITION:
        row, quotes = wine, _QUOTES_OF_FORM
    elif type(wine) is dict and form in (_BY_POSITION, _BY_NAME):
        row, quotes = _in_order(wine), _QUOTES_OF_FORM + _QUOTES_OF_NAMES
    else:
        return None
    if len(row) != FEATURE_COUNT or body.count(b'"') != quotes or not _are_numbers(row):
        return None
    if not (all(map(le, _MINIMA, row)) and all(map(le, row, _MAXIMA))):
        return None
    return np.array([row], dtype=np.float64)


def read_wines(body: bytes, most_rows: int) -> Matrix | None:
    """Return the wines in *body*, shape (rows, 11), or None when that is for `PredictBatchRequest` to say."""
    form, wines = _only_member(body)
    if type(wines) is not list or not 0 < len(wines) <= most_rows:
        return None
    kinds = set(map(type, wines))
    if kinds == {list} and form == _MANY_BY_POSITION:
        rows, quotes = wines, _QUOTES_OF_FORM
    elif kinds == {dict} and form in (_MANY_BY_POSITION, _MANY_BY_NAME):
        rows, quotes = [_in_order(wine) for wine in wines], _QUOTES_OF_FORM + len(wines) * _QUOTES_OF_NAMES
    else:
        return None
    if set(map(len, rows)) != {FEATURE_COUNT} or body.count(b'"') != quotes:
        return None
    numbers = list(chain.from_iterable(rows))
    if not _are_numbers(numbers):
        return None
    matrix = np.array(numbers, dtype=np.float64).reshape(len(rows), FEATURE_COUNT)
    if (matrix < _MINIMA_OF_MANY).any() or (matrix > _MAXIMA_OF_MANY).any():
        return None
    return matrix


def _only_member(body: bytes) -> tuple[str, Any] | tuple[None, None]:
    """Return the name and the value of the one member of the object in *body*."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None
    if type(document) is not dict or len(document) != 1:
        return None, None
    return next(iter(document.items()))


def _are_numbers(values: Iterable[Any]) -> bool:
    """Whether all *values* are numbers that are finite, as all are that orjson reads; a boolean is none."""
    return _NUMBERS.issuperset(map(type, values))


def _in_order(wine: dict[str, Any]) -> Sequence[Any]:
    """Return the values of *wine* in the order of FEATURES, or nothing if its names are not those."""
    arrange = _arrangement(tuple(wine)) if len(wine) == FEATURE_COUNT else None
    return () if arrange is None else arrange(list(wine.values()))


@lru_cache(maxsize=_ORDERS)
def _arrangement(spellings: tuple[str, ...]) -> itemgetter[Any] | None:
    """Return what brings values named by eleven *spellings* into the order of FEATURES."""
    names = [feature_name(spelling) for spelling in spellings]
    if set(names) != set(FEATURE_NAMES):
        return None
    return itemgetter(*(names.index(name) for name in FEATURE_NAMES))
