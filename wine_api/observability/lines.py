"""How a log line looks: one JSON object, or a line for people, and no text that was sent to us can break either."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import orjson

# What the lines that are written while this thread answers a request say of it: its id, and its trace if there is one.
request_of_thread: ContextVar[Mapping[str, str]] = ContextVar("request", default={})  # noqa: B039  # nobody changes it

_LONGEST_LINE = 4000  # a pipe takes a little more whole
_LONGEST_TEXT = 2500
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

Line = dict[str, Any]


def line_of(record: logging.LogRecord) -> Line:
    """Return the fields of *record*: the standard ones, those of the request, and what was given as `extra`."""
    line: Line = {
        "timestamp": record.created,
        "level": record.levelname,
        "logger": record.name,
        "message": _cut(_message(record)),
        **request_of_thread.get(),
    }
    for name, value in vars(record).items():
        if name not in _STANDARD_FIELDS:
            line[name] = _cut(value) if isinstance(value, str) else value
    if record.exc_info:
        line["exception"] = _cut_middle(logging.Formatter().formatException(record.exc_info), _LONGEST_TEXT)
    return line


def as_json(line: Line) -> bytes:
    """Write *line* as JSON, with its line break; its timestamp is in seconds since the epoch."""
    line["timestamp"] = timestamp(line["timestamp"])
    text = _dumped(line)
    if len(text) > _LONGEST_LINE:
        text = _dumped(_shortened(line))
    return text + b"\n"


def as_console(line: Line) -> bytes:
    """Write *line* for people: the time of day, the level, what happened, and the rest as name=value."""
    shown = {name: value for name, value in line.items() if name not in ("timestamp", "level", "message", "exception")}
    fields = " ".join(f"{name}={_plain(value)}" for name, value in shown.items() if value is not None)
    text = f"{timestamp(line['timestamp'])[11:23]} {line['level']:<8} {_plain(line['message'])}  {fields}\n"
    # A traceback is for people: in lines of its own, each indented, so that none looks like the beginning of another.
    for part in str(line.get("exception", "")).splitlines():
        text += f"    {_plain(part)}\n"
    return text.encode("utf-8", "backslashreplace")


FORMATS: Mapping[str, Callable[[Line], bytes]] = {"json": as_json, "console": as_console}


def timestamp(seconds: float) -> str:
    """Write a moment as RFC 3339, in UTC, with milliseconds."""
    whole = int(seconds)
    return f"{_date_and_time(whole)}.{int(1000 * (seconds - whole)):03d}Z"


class _LastSecond:
    """The second that was written last, in words: most lines fall into the same one."""

    said: tuple[int, str] = (-1, "")


def _date_and_time(second: int) -> str:
    said = _LastSecond.said
    if said[0] != second:
        # One assignment, as other threads read it at any time.
        said = _LastSecond.said = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return said[1]


def _shortened(line: Line) -> Line:
    """Return what *line* says most of all, with as much of the rest as has room."""
    kept = {name: line[name] for name in ("timestamp", "level", "logger", "request_id", "trace_id") if name in line}
    rest = {name: value for name, value in line.items() if name not in kept and name != "message"}
    return kept | {"message": _fitting(str(line["message"]), 1000), "shortened": _fitting(str(rest), 2000)}


def _dumped(line: Line) -> bytes:
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # whole numbers over 64 bits, lone surrogates
        return json.dumps(line, default=str, skipkeys=True).encode()


def _fitting(text: str, most_bytes: int) -> str:
    """Return as much of the beginning of *text* as takes *most_bytes* in JSON, where a character can take six."""
    text = text[:most_bytes]
    while len(json.dumps(text)) > most_bytes:
        text = text[: len(text) * 9 // 10]
    return text


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a message and arguments that do not fit must not lose the line
        return str(record.msg)


def _cut(text: str, longest: int = 1000) -> str:
    # Lone surrogates come from undecodable bytes in a request; orjson refuses them.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= longest else text[:longest] + "…"


def _cut_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return _cut(text, longest)
    half = longest // 2
    return _cut(text[:half] + " … " + text[-half:], longest + 3)


def _plain(value: Any) -> str:
    """Return *value* as text that neither breaks a line nor tells a terminal what to do."""
    text = value if isinstance(value, str) else _dumped(value).decode()
    return text if text.isprintable() else json.dumps(text)
