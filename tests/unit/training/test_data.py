"""Tables are read as they are, or refused with file and line."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.unit.training.synthetic import ANOTHER_WINE, ONE_WINE, UCI_HEADER, write_table
from wine_api.serving.wine import FEATURE_NAMES
from wine_api.training.data import DataFile, InvalidData, read_dataset

FIRST = [7.4, 0.7, 0, 1.9, 0.076, 11, 34, 0.9978, 3.51, 0.56, 9.4]
SECOND = [7.8, 0.88, 0, 2.6, 0.098, 25, 67, 0.9968, 3.2, 0.68, 9.8]

OUR_HEADER = ",".join([*FEATURE_NAMES, "quality"])
COMMAS = "\n".join([OUR_HEADER, ONE_WINE.replace(";", ","), ANOTHER_WINE.replace(";", ",")])
SEMICOLONS = "\n".join([UCI_HEADER, ONE_WINE, ANOTHER_WINE])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SEMICOLONS.encode(), id="semicolons and the names of UCI"),
        pytest.param(COMMAS.encode(), id="commas and our names"),
        pytest.param(SEMICOLONS.encode("utf-8-sig"), id="with a byte order mark"),
        pytest.param(SEMICOLONS.replace("\n", "\r\n").encode(), id="with the line ends of Windows"),
        pytest.param(f"{SEMICOLONS}\n\n".encode(), id="with blank lines at the end"),
        pytest.param(SEMICOLONS.replace("sulf", "Sulph").encode(), id="with British spelling"),
        pytest.param(SEMICOLONS.replace(";5", ";5.0").encode(), id="with qualities written as decimals"),
    ],
)
def test_reads_a_table(tmp_path, content):
    path = tmp_path / "wines.csv"
    path.write_bytes(content)

    dataset = read_dataset([path])

    assert dataset.wines.tolist() == [FIRST, SECOND]
    assert dataset.qualities.tolist() == [5, 6]
    assert (dataset.wines.dtype, dataset.qualities.dtype) == (np.float64, np.int64)


def test_puts_columns_into_our_order(tmp_path):
    path = tmp_path / "wines.csv"
    backwards = [";".join(reversed(line.split(";"))) for line in SEMICOLONS.splitlines()]
    path.write_text("\n".join(backwards))

    dataset = read_dataset([path])

    assert dataset.wines.tolist() == [FIRST, SECOND]
    assert dataset.qualities.tolist() == [5, 6]


def test_joins_tables_and_remembers_what_each_was(tmp_path):
    red = write_table(tmp_path / "red.csv", ONE_WINE)
    white = write_table(tmp_path / "white.csv", ANOTHER_WINE, ANOTHER_WINE)

    dataset = read_dataset([red, white])

    assert dataset.wines.tolist() == [FIRST, SECOND, SECOND]
    assert dataset.files == (
        DataFile("red.csv", hashlib.sha256(red.read_bytes()).hexdigest(), 1),
        DataFile("white.csv", hashlib.sha256(white.read_bytes()).hexdigest(), 2),
    )


def test_refuses_a_table_that_is_given_twice(tmp_path):
    table = write_table(tmp_path / "wines.csv", ONE_WINE, ANOTHER_WINE)
    copy = write_table(tmp_path / "copy.csv", ONE_WINE, ANOTHER_WINE)

    with pytest.raises(InvalidData, match=r"copy\.csv: the same data as .*wines\.csv"):
        read_dataset([table, copy])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param(SEMICOLONS, "", ": the file is empty", id="nothing"),
        pytest.param(SEMICOLONS, UCI_HEADER, ": there is a header, but no wines", id="only a header"),
        pytest.param('"pH"', '"colour"', ", line 1: unknown column 'colour'", id="unknown column"),
        pytest.param(';"pH"', "", ", line 1: missing column pH", id="missing column"),
        pytest.param(';"quality"', "", ", line 1: missing column quality", id="no quality"),
        pytest.param(
            '"density"', '"Ph"', ", line 1: pH is there twice, as 'Ph' and 'pH'", id="column twice, spelt otherwise"
        ),
        pytest.param("quality", "quality;Quality", ", line 1: unknown column", id="quote within a name"),
        pytest.param(UCI_HEADER, ONE_WINE, ", line 1: unknown column '7.4'", id="no header"),
        pytest.param("9.8;6", "9.8", ", line 3: 11 values, but the header names 12 columns", id="short line"),
        pytest.param("9.8;6", "9.8;6;1", ", line 3: 13 values, but the header names 12 columns", id="long line"),
        pytest.param("3.2;", "acid;", ", line 3: pH is 'acid', not a number", id="word"),
        pytest.param("3.2;", "3,2;", ", line 3: pH is '3,2', not a number", id="decimal comma"),
        pytest.param("3.2;", ";", ", line 3: pH is '', not a number", id="nothing in a cell"),
        pytest.param("3.2;", "NaN;", ", line 3: pH is 'NaN', not a number", id="NaN"),
        pytest.param("3.2;", "inf;", ", line 3: pH is 'inf', not a number", id="infinity"),
        pytest.param("3.2;", "3_2;", ", line 3: pH is '3_2', not a number", id="a number only for Python"),
        pytest.param("3.2;", "14.1;", ", line 3: pH is '14.1', above 14", id="more than is possible"),
        pytest.param("25;", "-25;", ", line 3: free_sulfur_dioxide is '-25', below 0", id="less than nothing"),
        pytest.param("25;", "1e39;", ", line 3: free_sulfur_dioxide is too large", id="more than a tree can compare"),
        pytest.param("9.8;6", "9.8;6.5", ", line 3: quality is '6.5', not a whole number", id="half a point"),
        pytest.param("9.8;6", "9.8;11", ", line 3: quality is '11', above 10", id="off the scale"),
        pytest.param("9.8;6", "9.8;5", ": all wines have the same quality", id="one quality"),
        pytest.param("9.8;6", '9.8;"6', ", line 3: unexpected end of data", id="open quote"),
        pytest.param("3.2;", "3\x1b[31m;", r", line 3: pH is '3\x1b[31m', not a number", id="terminal codes"),
    ],
)
def test_refuses_a_bad_table_and_says_where(tmp_path, old, new, complaint):
    path = tmp_path / "wines.csv"
    path.write_text(SEMICOLONS.replace(old, new))

    with pytest.raises(InvalidData) as refusal:
        read_dataset([path])

    assert str(refusal.value).startswith(f"{path}{complaint}")
    assert "\n" not in str(refusal.value)


def test_refuses_what_is_not_text(tmp_path):
    path = tmp_path / "wines.csv"
    path.write_bytes(SEMICOLONS.encode() + b"\n\xff")

    with pytest.raises(InvalidData, match="line 4: not UTF-8 text"):
        read_dataset([path])
