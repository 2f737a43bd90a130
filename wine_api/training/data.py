"""The tables of wines that a model is trained on, read strictly.

A table is the UCI "Wine Quality" kind of CSV: a header, then one wine a line, separated by `;` or `,`. Nothing is
guessed, filled in or left out: a model trained on half-read data looks like any other.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wine_api.serving.wine import FEATURE_NAMES, FEATURES, Matrix, feature_name

QUALITY = "quality"
HIGHEST_QUALITY = 10  # the tasters' scale starts at 0

Labels = npt.NDArray[np.int64]

_COLUMNS = (*FEATURE_NAMES, QUALITY)
# float() would also read "1_000", "nan", "inf" and digits of other scripts.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
# The trees compare in float32, and refuse what does not fit.
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN_CHARACTERS = 40


class InvalidData(Exception):
    """The data cannot be trained on; the message is one line that says where and why."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """Which file some of the wines came from; *name* is without its folder."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """Wines with the quality that tasters gave them, in the order of the files."""

    wines: Matrix
    qualities: Labels
    files: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """One file: a row has the features in their order, then the quality."""

    path: Path
    sha256: str
    rows: list[list[float]]


def read_dataset(paths: Sequence[Path]) -> Dataset:
    """Read the tables at *paths* as one data set.

    Raises `InvalidData` at the first thing that is wrong.
    """
    tables = [_read_table(path) for path in paths]
    _refuse_repetition(tables)
    values = np.array([row for table in tables for row in table.rows], dtype=np.float64)
    qualities = values[:, -1].astype(np.int64)
    if len(np.unique(qualities)) < 2:
        files = ", ".join(str(path) for path in paths)
        raise InvalidData(f"{files}: all wines have the same quality, so there is nothing to learn")
    return Dataset(
        wines=np.ascontiguousarray(values[:, :-1]),
        qualities=qualities,
        files=tuple(DataFile(table.path.name, table.sha256, len(table.rows)) for table in tables),
    )


def _refuse_repetition(tables: Sequence[_Table]) -> None:
    """Refuse a table that is given twice: each of its wines would count double."""
    seen: dict[str, Path] = {}
    for table in tables:
        if table.sha256 in seen:
            raise InvalidData(f"{table.path}: the same data as {seen[table.sha256]}")
        seen[table.sha256] = table.path


def _read_table(path: Path) -> _Table:
    content = path.read_bytes()
    lines = _lines(content, path)
    number, header = next(lines, (0, []))
    if not header:
        raise InvalidData(f"{path}: the file is empty")
    positions = _positions(header, f"{path}, line {number}")
    rows = [_wine(cells, positions, f"{path}, line {number}") for number, cells in lines]
    if not rows:
        raise InvalidData(f"{path}: there is a header, but no wines")
    return _Table(path, hashlib.sha256(content).hexdigest(), rows)


def _lines(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not blank, with its number."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidData(f"{path}, line {line}: not UTF-8 text") from error
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise InvalidData(f"{path}, line {reader.line_num}: {error}") from error


def _positions(header: Sequence[str], where: str) -> list[int]:
    """Find where in *header* the features and the quality stand."""
    found: dict[str, int] = {}
    for position, spelling in enumerate(header):
        column = _column(spelling)
        if column is None:
            raise InvalidData(f"{where}: unknown column {_shown(spelling)}")
        if column in found:
            raise InvalidData(
                f"{where}: {column} is there twice, as {_shown(header[found[column]])} and {_shown(spelling)}"
            )
        found[column] = position
    missing = [column for column in _COLUMNS if column not in found]
    if missing:
        raise InvalidData(f"{where}: missing column {', '.join(missing)}")
    return [found[column] for column in _COLUMNS]


def _column(spelling: str) -> str | None:
    return QUALITY if spelling.strip().casefold() == QUALITY else feature_name(spelling)


def _wine(cells: Sequence[str], positions: Sequence[int], where: str) -> list[float]:
    if len(cells) != len(positions):
        raise InvalidData(f"{where}: {len(cells)} values, but the header names {len(positions)} columns")
    *measurements, quality = (cells[position] for position in positions)
    values = [
        _number(cell, f"{where}: {feature.name}", feature.minimum, feature.maximum)
        for feature, cell in zip(FEATURES, measurements, strict=True)
    ]
    return [*values, _score(quality, f"{where}: {QUALITY}")]


def _score(cell: str, where: str) -> float:
    score = _number(cell, where, 0, HIGHEST_QUALITY)
    if not score.is_integer():
        raise InvalidData(f"{where} is {_shown(cell)}, not a whole number")
    return score


def _number(cell: str, where: str, minimum: float, maximum: float | None) -> float:
    if _NUMBER.fullmatch(cell) is None:
        raise InvalidData(f"{where} is {_shown(cell)}, not a number")
    value = float(cell)
    if value < minimum:
        raise InvalidData(f"{where} is {_shown(cell)}, below {minimum:g}")
    if value > (_LARGEST if maximum is None else maximum):
        raise InvalidData(f"{where} is {_shown(cell)}, above {maximum:g}" if maximum else f"{where} is too large")
    return value


def _shown(text: str) -> str:
    """Quote *text* from a file so that it stays on one line and cannot drive a terminal."""
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…")
