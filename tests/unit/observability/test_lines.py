"""Log lines: one JSON object a line, or one line for people, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

import pytest

from wine_api.observability.lines import as_console, as_json, line_of, request_of_thread, timestamp

PIPE_BUF = 4096  # what a pipe takes whole


def written(message: object, *arguments: object, exc_info=None, **fields: object) -> dict:
    """Return the line of a record, after a check that it is one line of JSON that a pipe takes whole."""
    record = logging.LogRecord("wine", logging.WARNING, "file.py", 1, message, arguments, exc_info)
    vars(record).update(fields)
    text = as_json(line_of(record)).decode().removesuffix("\n")
    assert "\n" not in text
    assert len(text.encode()) < PIPE_BUF
    return json.loads(text, parse_constant=pytest.fail)


def test_a_line_says_when_how_bad_who_and_what():
    line = written("model %s loaded", "1.0")

    assert [*line] == ["timestamp", "level", "logger", "message"]
    assert line["level"] == "WARNING"
    assert line["logger"] == "wine"
    assert line["message"] == "model 1.0 loaded"


def test_the_time_is_rfc_3339_in_utc_with_milliseconds():
    line = written("x", created=1_700_000_000.1239)

    assert line["timestamp"] == "2023-11-14T22:13:20.123Z"
    assert datetime.fromisoformat(line["timestamp"]).tzname() == "UTC"


def test_extra_fields_stand_beside_the_message():
    line = written("model loaded", event="model loaded", generation=3, stale=False, reason=None)

    assert line["event"] == "model loaded"
    assert line["generation"] == 3
    assert line["stale"] is False
    assert line["reason"] is None


def test_lines_written_during_a_request_carry_its_id():
    token = request_of_thread.set({"request_id": "my-request"})

    line = written("half way")

    request_of_thread.reset(token)
    assert line["request_id"] == "my-request"
    assert "request_id" not in written("after it")


@pytest.mark.parametrize(
    "text",
    ['"}\n{"level": "CRITICAL"', "a\r\nb\u2028c\x1b[31m\x00", "\ud800", "é🍷", "a\x85b"],
    ids=["forged line", "line breaks", "lone surrogate", "not ASCII", "next line"],
)
def test_no_text_can_break_or_forge_a_line(text):
    line = written(text, path=text)

    assert line["level"] == "WARNING"
    assert line["path"] == line["message"]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1: 2},
        {"a": {"b": [1]}},
        b"bytes",
        float("nan"),
        10**30,
        {1, 2},
        ["\ud800"],
        {"\ud800": 1},
        Exception("x"),
    ],
    ids=[
        "object",
        "numbers as keys",
        "nested",
        "bytes",
        "NaN",
        "huge",
        "set",
        "surrogate in a list",
        "as a key",
        "error",
    ],
)
def test_no_value_is_a_reason_to_lose_the_line(value):
    assert written("x", value=value)["message"] == "x"


def test_arguments_that_do_not_fit_do_not_lose_the_line():
    assert written("%d corks", "many")["message"] == "%d corks"
    assert written("one", "too", "many")["message"] == "one"


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "🍷" * 50_000, "\x01" * 50_000, "\ud800" * 50_000], ids=["a", "🍷", "x01", "d8"]
)
def test_long_texts_are_cut(text):
    line = written(text, path=text, other=text)

    assert line["level"] == "WARNING"
    assert line["message"]


def test_many_fields_are_cut_to_a_line_that_still_says_what_happened():
    token = request_of_thread.set({"request_id": "my-request"})

    line = written("many fields", **{f"field_{number}": "x" * 900 for number in range(20)})

    request_of_thread.reset(token)
    assert line["message"] == "many fields"
    assert line["request_id"] == "my-request"


def test_an_error_comes_with_its_traceback():
    try:
        raise ValueError("no cork")
    except ValueError:
        line = written("failed", exc_info=sys.exc_info())

    assert "Traceback" in line["exception"]
    assert "ValueError: no cork" in line["exception"]


def test_a_long_traceback_keeps_its_beginning_and_its_end():
    try:
        raise ValueError("x" * 10_000 + "the end")
    except ValueError:
        line = written("failed", exc_info=sys.exc_info())

    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("the end")


def for_people(message, exc_info=None, **fields):
    record = logging.LogRecord("wine", logging.WARNING, "file.py", 1, message, (), exc_info)
    vars(record).update(fields, created=1_700_000_000.5)
    return as_console(line_of(record)).decode()


def test_a_line_for_people_begins_with_the_time_and_what_happened():
    text = for_people("model loaded", version="1.0", generation=3, reason=None)

    assert text == "22:13:20.500 WARNING  model loaded  logger=wine version=1.0 generation=3\n"


@pytest.mark.parametrize("text", ["a\nb", "a\r\n22:13:20.500 CRITICAL forged", "\x1b[31mred", "\ud800", "\u2028"])
def test_no_text_can_break_or_forge_a_line_for_people(text):
    line = for_people(text, path=text)

    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_a_traceback_for_people_is_indented():
    try:
        raise ValueError("no\ncork")
    except ValueError:
        first, *rest = for_people("failed", exc_info=sys.exc_info()).splitlines()

    assert "failed" in first
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.9999, "2023-11-14T22:13:20.999Z")],
)
def test_a_moment_is_never_rounded_up(seconds, text):
    assert timestamp(seconds) == text
