"""Everything that this process logs, whoever logs it, Gunicorn included, through one handler."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gunicorn import glogging

from wine_api.observability.line_writer import LineWriter
from wine_api.observability.lines import FORMATS, Line, as_json, line_of


class LineHandler(logging.Handler):
    """Writes each record as a line."""

    def __init__(self, write_as: Callable[[Line], bytes] = as_json) -> None:
        super().__init__()
        self.writer = LineWriter(write_as=write_as)
        self._write_as = write_as

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*; what cannot be written loses the line, never the request."""
        try:
            # Now: what is logged may be an object that changes.
            self.writer.write(self._write_as(line_of(record)))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits; `logging` calls it when the process ends."""
        self.writer.flush()


def configure(level: str, line_format: str = "json") -> None:
    """Send everything through one handler: our lines, libraries', warnings, crashes."""
    root = logging.getLogger()
    root.handlers[:] = [LineHandler(FORMATS[line_format])]
    root.setLevel(level)
    for chatty in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


def begin_worker(count_dropped: Callable[[int], None]) -> None:
    """Write lines in a thread of this worker from now on; *count_dropped* hears of those that nobody took."""
    for handler in _line_handlers():
        handler.writer.begin_thread(count_dropped)


def write(logger: logging.Logger, level: int, message: str, fields: Line) -> None:
    """Write a line as *logger* would, for a fraction of what a record costs: for the one of each request.

    *fields* hold text and numbers, and are not changed afterwards.
    """
    if not logger.isEnabledFor(level):
        return
    line: Line = {
        "timestamp": time.time(),
        "level": logging.getLevelName(level),
        "logger": logger.name,
        "message": message,
    }
    line |= fields
    for handler in logging.root.handlers:
        if isinstance(handler, LineHandler):
            handler.writer.write(line)


def _line_handlers() -> list[LineHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)]


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
        """Send Gunicorn's lines to the root logger's handler, which `worker.read_settings` has put there."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.handlers[:] = []
        self.error_log.propagate = True
        self.error_log.setLevel(cfg.loglevel.upper())

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Leave the request's line to `RequestObserver`."""

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""

    def close_on_exec(self) -> None:
        """Do nothing: there are no files."""
