"""The life of one Gunicorn worker, and of the master as far as the workers need it. gunicorn.conf.py calls this."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any, NoReturn

import sklearn.ensemble  # noqa: F401  # most models need it: imported by the master, once for all workers
from gunicorn import util
from gunicorn.http import errors as http_errors

from wine_api import metrics, quick_sockets
from wine_api.admission import AdmittingWorker
from wine_api.api.error_handlers import PROBLEM_MEDIA_TYPE, problem_document
from wine_api.config import InvalidSetting, Settings
from wine_api.connections import Answered
from wine_api.observability import logs, traces
from wine_api.observability.request_log import RequestLog
from wine_api.observability.requests import REQUEST_ID_HEADER, ObservedRequest, shortened, valid_request_id
from wine_api.security import HOST_FILES, deadline, overload
from wine_api.security.auth import build_authenticator
from wine_api.security.headers import of_answer_without_application
from wine_api.security.rate_limit import build_shared_counters
from wine_api.services import Services, build_policy, services_of
from wine_api.serving import files

logger = logging.getLogger(__name__)

_LINGER_SECONDS = 0.5
_NO_PATIENCE_SECONDS = 0.001  # enough to see that a body was read to its end
_MOVED = object()  # what is told of a request that another thread goes on with
_METRICS = "metrics"  # in STATE_DIR: where the workers of this instance count together


# The master


def read_settings() -> Settings:
    """Return the settings, with the folders they name made, or say in one line why not and exit."""
    try:
        settings = Settings.from_environ()
        _refuse_what_cannot_work(settings)
    except InvalidSetting as error:
        refuse_to_start(error)
    metrics.count_in_files(settings.state_folder / _METRICS)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def _refuse_what_cannot_work(settings: Settings) -> None:
    """Raise `InvalidSetting` for what else would fail later, where no single line says why; and make the folders."""
    build_authenticator(settings)
    build_shared_counters(settings)
    build_policy(settings)
    if settings.traces and not traces.are_possible():
        raise InvalidSetting("TRACES needs the extra otel: pip install 'wine-api[otel]'")
    try:
        files.make_private_folder(files.make_private_folder(settings.state_folder) / _METRICS)
    except OSError as error:
        raise InvalidSetting(f"STATE_DIR must be a folder of this user's own; {error}") from error


def refuse_to_start(error: Exception) -> NoReturn:
    """Say in one line why the service cannot start, and exit."""
    logs.configure("INFO")
    logger.critical("cannot start", extra={"reason": str(error)})
    sys.exit(1)


class StateDirInUse(Exception):
    """Another instance uses the same `STATE_DIR`."""


def begin_run(services: Services, *, upgrading: bool) -> IO[bytes] | None:
    """Start a run of this instance, in the master, before its first worker.

    Returns the lock that says so, to be kept open while the master lives. *upgrading*: this master takes over from
    another one, whose workers still answer (SIGUSR2); then the run goes on, and there is no lock to take.
    Raises `StateDirInUse`.
    """
    folder = services.settings.state_folder
    lock = files.try_lock(folder / "instance.lock")
    if lock is None:
        if upgrading:
            return None
        raise StateDirInUse("STATE_DIR is in use by another instance; give each its own")
    services.fleet.begin_run(services.settings.web_concurrency)
    for name in HOST_FILES:
        (folder / name).unlink(missing_ok=True)
    for counted in (folder / _METRICS).glob("*.db"):
        counted.unlink()
    return lock


def on_starting(server: Any) -> None:
    """Begin the run, or say in one line why not and exit."""
    services = services_of(server.app.wsgi())
    # What the master has made so far, workers share with it as long as nobody writes to it, and the collector does.
    gc.freeze()
    gc.enable()
    try:
        server.wine_run = begin_run(services, upgrading=server.master_pid != 0)
    except (OSError, StateDirInUse) as error:
        refuse_to_start(error)
    if services.settings.drain_seconds > 0:
        server.handle_term = Drain(server, services)


class Drain:
    """The master's answer to SIGTERM: first nobody is ready any more, and `DRAIN_SECONDS` later the workers stop.

    Whoever sends requests here needs a moment to notice; until then they are answered. A second SIGTERM ends the wait.
    """

    def __init__(self, server: Any, services: Services) -> None:
        self._server = server
        self._stop = server.handle_term
        self._draining = services.draining
        self._seconds = services.settings.drain_seconds

    def __call__(self) -> None:
        """Begin to drain, or stop if that was begun before."""
        if self._draining.everywhere:
            self._stop()
        self._draining.set_everywhere()
        logger.info("draining", extra={"seconds": self._seconds})
        # By a timer, as the master has to look after its workers meanwhile; children do not inherit timers.
        signal.signal(signal.SIGALRM, lambda number, frame: self._server.signal(signal.SIGTERM, frame))
        signal.setitimer(signal.ITIMER_REAL, self._seconds)


def when_ready(server: Any) -> None:
    """Say where to look."""
    services = services_of(server.app.wsgi())
    address = f"http://{services.settings.host}:{services.settings.port}"
    logger.info("serving", extra={"url": address, "docs": f"{address}/docs", "health": f"{address}/health"})
    if services.settings.is_open:
        logger.warning(
            "no API keys: everyone may predict and read, and programs on this host may change the model",
            extra={"event": "open", "reason": "neither API_KEYS_FILE nor JWT_JWKS is set"},
        )


def child_exit(server: Any) -> None:
    """Drop the gauges of workers that are gone."""
    for slot in services_of(server.app.wsgi()).fleet.free_slots():
        metrics.forget_gauges_of(slot)


# A worker


def post_fork(server: Any, worker: Any) -> None:
    """Make a worker out of a fresh fork: it returns with a model, or after it has tried for long enough.

    Never raises: that would halt the master with all its healthy workers.
    """
    try:
        _default_signals()
        if server.wine_run is not None:
            server.wine_run.close()  # the lock stays the master's alone
        services = services_of(worker.app.wsgi())
        metrics.use_slot(services.fleet.join())
        logs.begin_worker(services.metrics.log_lines_dropped.inc)
        if services.settings.traces:
            traces.begin(services.spans)
        services.refresher.start()
    except Exception:
        logger.exception("worker started without a model")


def _default_signals() -> None:
    # The fork still has the master's handlers, which only queue: a stop during the load would not be heard.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Worker(AdmittingWorker):
    """What becomes of a request that was taken.

    Requests that are not HTTP get answers and log lines of our own; those that only wait keep nobody from being
    answered; and when the worker stops, nothing that has come is lost.
    """

    def _cap_keepalive(self, deadline: float) -> None:
        """Let nobody who is silent keep a worker from stopping."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    # Answering

    def handle(self, conn: Any) -> Any:
        """Answer the next request of *conn*. The answer to one that was read already is held, not sent."""
        request, conn.plain_request = conn.plain_request, None
        if request is None:
            return super().handle(conn)
        return self._answer_read(self._hold_answer, request, conn)

    def _hold_answer(self, req: Any, conn: Any) -> Any:
        conn.sock.hold()
        try:
            return self.handle_request(req, conn)
        except BaseException:
            conn.sock.drop()
            raise

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request; one that only waits keeps nobody else from being answered."""
        deadline.arrived_at.set(conn.arrived)
        if services_of(self.app.wsgi()).draining.is_set():
            req.force_close()  # so that the client's next request goes where it will be answered
        if req.path not in overload.WAITING:
            return super().handle_request(req, conn)
        self._do_beside(conn, self._answer_read, super().handle_request, req, conn)
        return _MOVED

    def _answer_read(self, answer: Callable[..., Any], req: Any, conn: Any) -> Any:
        """Do what Gunicorn's `handle` does with a request that was read."""
        try:
            return self._keepalive_after(conn, answer(req, conn))
        except OSError:
            logger.debug("client is gone")
        except Exception as error:
            self.handle_error(req, conn.sock, conn.client, error)
        return False

    def finish_request(self, conn: Any, fs: Future[Any] | Answered) -> None:
        """Wait for the next request of *conn*, or close it, unless another thread still answers on it."""
        if fs.cancelled() or fs.exception() is not None or fs.result() is not _MOVED:
            super().finish_request(conn, fs)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """Stop: no longer ready, then finish what is under way."""
        services_of(self.app.wsgi()).draining.set()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept connections, or no more; a stopping worker takes those that wait already, and then refuses others.

        Gunicorn keeps the socket open until its last connection ends: what comes meanwhile waits for nobody, and is
        reset after it has sent its request. A proxy that is refused at once asks another instance.
        """
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        super().set_accept_enabled(False)  # the signal to stop may have come since
        while self.sockets:
            listener = self.sockets.pop()
            self.accept_all(listener)
            listener.close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that the application never saw, or could not answer."""
        status, reason, code, detail = _describe(exc)
        sent = dict(getattr(req, "headers", ()))  # none of a request that could not be read
        request = ObservedRequest(
            request_id=valid_request_id(sent.get(REQUEST_ID_HEADER.upper())),
            method=str(getattr(req, "method", None) or "-"),
            path=shortened(str(getattr(req, "path", None) or "-")),
            client=addr[0] if addr else "",
            started=time.perf_counter(),
            status=status,
            outcome=None,
        )
        if status == 500:
            logger.error("request failed", exc_info=exc, extra={"request_id": request.request_id})
        services = services_of(self.app.wsgi())
        services.metrics.errors.labels(code).inc()
        RequestLog().write(request)
        body = problem_document(status, code, reason, detail, request.request_id)
        headers = {
            "Connection": "close",
            "Content-Type": PROBLEM_MEDIA_TYPE,
            "Content-Length": str(len(body)),
            REQUEST_ID_HEADER: request.request_id,
            **of_answer_without_application(services.settings.cors_origins, sent.get("ORIGIN")),
        }
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        try:
            util.write_nonblock(client, "\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)
            util.close_graceful(client, timeout=_LINGER_SECONDS)
        except OSError:
            logger.debug("client is gone")

    def _keepalive_after(self, conn: Any, keepalive: Any) -> Any:
        """Whether the connection can take another request; if not, it is closed here.

        Gunicorn waits longer for a body that nobody reads, and lingers on the thread that accepts connections: a few
        clients that announce a body, are told that it is too large, and wait, would make health checks fail.
        """
        if keepalive is _MOVED:
            return _MOVED
        if not keepalive:
            conn.sock.release()  # an answer that is held goes out before the connection ends
        has_read_all = _finish_body(conn, _LINGER_SECONDS if keepalive else _NO_PATIENCE_SECONDS)
        if keepalive and has_read_all:
            return True
        if has_read_all and quick_sockets.count_unread(conn.sock.fileno()) == 0:
            conn.sock.close()  # nothing unread could take the answer back: nobody has to wait for the client
        else:
            util.close_graceful(conn.sock, timeout=_LINGER_SECONDS)
        return False


def _finish_body(conn: Any, seconds: float) -> bool:
    """Whether what was left of the request's body could be read in *seconds*; its request is answered already."""
    if conn.parser is None:  # no request on it has needed one: each was read whole
        return True
    try:
        return bool(conn.parser.finish_body(deadline=time.monotonic() + seconds))
    except Exception:  # malformed, or the client is gone: a second answer would be taken for that to another request
        logger.debug("the rest of a body was not read", exc_info=True)
        return False


def _describe(error: BaseException) -> tuple[int, str, str, str]:
    """Return status, reason, code and detail for what Gunicorn raised while it read a request."""
    if isinstance(error, http_errors.LimitRequestLine):
        return 414, "URI Too Long", "uri_too_long", "The request line is too long."
    if isinstance(error, http_errors.LimitRequestHeaders):
        return 431, "Request Header Fields Too Large", "headers_too_large", "The headers are too large or too many."
    if isinstance(error, http_errors.UnsupportedTransferCoding):
        return 501, "Not Implemented", "unsupported_transfer_coding", "Only the chunked transfer coding is supported."
    if isinstance(error, http_errors.ExpectationFailed):
        return 417, "Expectation Failed", "expectation_failed", "Only 100-continue can be expected."
    ours = (http_errors.InvalidResponseHeader, http_errors.InvalidResponseHeaderName, http_errors.ConfigurationProblem)
    if isinstance(error, http_errors.ParseException) and not isinstance(error, ours):
        return 400, "Bad Request", "malformed_request", "The request is not well-formed HTTP."
    return 500, "Internal Server Error", "internal_error", "Something went wrong here. The log has the details."
