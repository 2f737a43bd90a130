"""What every request has to pass before its view is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import NotFound

from wine_api.config import Settings
from wine_api.errors import NotAuthenticated
from wine_api.metrics import Metrics
from wine_api.security import deadline
from wine_api.security.access import Access, Caller, Scope
from wine_api.security.auth import Authenticator, build_authenticator, counted_as, require_scope
from wine_api.security.rate_limit import RateLimits, Standing, build_rate_limits

_EXTENSION = "guard"
_ADMITTED = "wine_api.admitted"


@dataclass(slots=True)
class _Admitted:
    """What the guard knows of a request that it let through, or would not."""

    deadline: float | None = None
    caller: Caller | None = None
    standing: Standing = field(default_factory=Standing)


class Guard:
    """Lets requests through to the routes that it was told of."""

    def __init__(self, authenticator: Authenticator, limits: RateLimits | None, deadline_seconds: float) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._deadline_seconds = deadline_seconds
        self._routes: dict[str, Access] = {}

    def open(self, routes: Mapping[str, Access]) -> None:
        """Let callers through to *routes*, by endpoint, on their conditions."""
        self._routes.update(routes)

    def access_of(self, endpoint: str) -> Access | None:
        """Return the conditions of a route, or None if it does not answer."""
        return self._routes.get(endpoint)

    def check(self) -> None:
        """Raise unless the current request may go on to its view."""
        seen = request._get_current_object()  # type: ignore[attr-defined]  # each look through the proxy costs
        endpoint = seen.endpoint
        if endpoint is None:  # no such address, or method: Flask says so
            return
        access = self._routes.get(endpoint)
        if access is None:  # nobody has said who may call it
            raise NotFound
        if access.scope is None and not access.limited:
            return
        environ = seen.environ
        admitted = environ[_ADMITTED] = _Admitted()
        if access.scope is Scope.PREDICT:
            admitted.deadline = deadline.deadline_of(environ, self._deadline_seconds)
            deadline.refuse_if_over(admitted.deadline)
        admitted.caller = self._caller(environ, access, admitted.standing)
        if self._limits is not None and access.limited:
            self._limits.take_request(admitted.caller.counted_as, admitted.standing)

    def _caller(self, environ: dict[str, object], access: Access, standing: Standing) -> Caller:
        if access.scope is None:
            return Caller(None, counted_as(environ), frozenset())
        try:
            caller = self._authenticator.caller(environ)
        except NotAuthenticated:
            if self._limits is not None:  # who guesses keys has an address
                self._limits.take_request(counted_as(environ), standing)
            raise
        require_scope(caller, access.scope)
        return caller

    def admit_rows(self, rows: int) -> None:
        """Let the model be asked for so many *rows*: the last step before it is.

        Raises `DeadlineExceeded` or `RateLimited`.
        """
        admitted: _Admitted = request.environ[_ADMITTED]
        deadline.refuse_if_over(admitted.deadline)
        if self._limits is not None and admitted.caller is not None:
            self._limits.take_rows(admitted.caller.counted_as, rows, admitted.standing)

    def add_limit_headers(self, response: Response) -> Response:
        """Tell the caller how it stands."""
        admitted: _Admitted | None = request.environ.get(_ADMITTED)
        if admitted is not None and self._limits is not None and (standing := str(admitted.standing)):
            response.headers["RateLimit-Policy"] = self._limits.policy
            response.headers["RateLimit"] = standing
        return response


def init_app(app: Flask, settings: Settings, metrics: Metrics) -> None:
    """Guard the routes of *app*."""
    limits = build_rate_limits(settings, metrics)
    guard = Guard(build_authenticator(settings), limits, settings.request_deadline)
    app.extensions[_EXTENSION] = guard
    app.before_request(guard.check)
    if limits is not None:
        app.after_request(guard.add_limit_headers)


def guard_of(app: Flask) -> Guard:
    """Return the guard of *app*."""
    return cast(Guard, app.extensions[_EXTENSION])


def admit_rows(rows: int) -> None:
    """Let the model be asked for so many *rows*, in the current request: the last step before it is."""
    guard_of(current_app).admit_rows(rows)


def caller_name() -> str | None:
    """Return whose key or token the current request came with, for the log."""
    admitted: _Admitted | None = request.environ.get(_ADMITTED)
    return None if admitted is None or admitted.caller is None else admitted.caller.name
