"""Log lines: one JSON object a line, whoever writes it, Gunicorn included."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson
from gunicorn import glogging

# The id of the request that this thread answers, for the lines that are written meanwhile.
request_id_of_thread: ContextVar[str | None] = ContextVar("request_id", default=None)

# A pipe takes up to PIPE_BUF (4096) bytes whole: longer lines of two workers could run into each other.
_LONGEST_LINE = 4000
_LONGEST_TEXT = 2500
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JSONFormatter(logging.Formatter):
    """Writes a record with all its extra fields as one JSON object without line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*."""
        line: dict[str, Any] = {
            "timestamp": _rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(_message(record)),
        }
        if (request_id := request_id_of_thread.get()) is not None:
            line["request_id"] = request_id
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                line[name] = _cut(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = _cut_middle(self.formatException(record.exc_info), _LONGEST_TEXT)
        return _encode(line).decode()


def _encode(line: dict[str, Any]) -> bytes:
    text = _dumped(line)
    if len(text) <= _LONGEST_LINE:
        return text
    kept = {name: line[name] for name in ("timestamp", "level", "logger", "request_id") if name in line}
    rest = {name: value for name, value in line.items() if name not in kept and name != "message"}
    return _dumped(kept | {"message": _fitting(str(line["message"]), 1000), "shortened": _fitting(str(rest), 2000)})


def _dumped(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # whole numbers over 64 bits, lone surrogates within lists
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


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LineHandler(logging.Handler):
    """Writes each line to standard output with one system call, so that lines of several workers do not mix."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*; a closed output loses the line, never the request."""
        try:
            line = (self.format(record) + "\n").encode()
        except Exception:
            self.handleError(record)
            return
        with contextlib.suppress(OSError):
            os.write(1, line)


def configure(level: str) -> None:
    """Send everything that this process logs through one handler: our lines, libraries', warnings, crashes."""
    handler = LineHandler()
    handler.setFormatter(JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


def _log_crash(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("wine_api").critical("crashed", exc_info=(kind, error, traceback))


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_type is SystemExit:  # a way to end a thread, not a crash
        return
    error = crash.exc_value or crash.exc_type()
    logging.getLogger("wine_api").error("thread crashed", exc_info=(crash.exc_type, error, crash.exc_traceback))


class GunicornLogger(glogging.Logger):
    """Gunicorn's logger, in our format.

    Requests are logged by `RequestObserver`, which knows more of them, so Gunicorn's own access line is off.
    """

    def setup(self, cfg: Any) -> None:
        """Send Gunicorn's lines to the root logger's handler."""
        self.cfg = cfg
        self._access_log_enabled = False
        configure(cfg.loglevel.upper())
        self.error_log.handlers[:] = []
        self.error_log.propagate = True
        self.error_log.setLevel(cfg.loglevel.upper())

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Leave the request's line to `RequestObserver`."""

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""

    def close_on_exec(self) -> None:
        """Do nothing: there are no files."""
