"""What every request has to pass before its view is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app, request
from werkzeug.exceptions import NotFound

from wine_api.errors import NotAuthenticated
from wine_api.security import deadline
from wine_api.security.access import Access, Scope
from wine_api.security.auth import Authenticator, counted_as, is_on_this_host, refusal_of, refusal_of_others
from wine_api.security.rate_limit import RateLimits

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_EXTENSION = "guard"
_REQUEST = "wine_api.request"  # where observability keeps what the log says of a request
# What the guard leaves in the environ for itself, for when it comes to rows.
_COUNTED_AS = "wine_api.counted_as"
_DEADLINE = "wine_api.deadline"


class Guard:
    """Lets requests through to the routes that it was told of.

    Without an *authenticator* nobody needs a key, without *limits* nothing is counted. Each request pays for what is
    on, and for nothing else.
    """

    def __init__(self, authenticator: Authenticator | None, limits: RateLimits | None, deadline_seconds: float) -> None:
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
        if seen.url_rule is None:  # no such address, or method: Flask says so
            return
        access = self._routes.get(seen.url_rule.endpoint)
        if access is None:  # nobody has said who may call it
            raise NotFound
        environ = seen.environ
        if access.scope is Scope.PREDICT:
            environ[_DEADLINE] = until = deadline.deadline_of(environ, self._deadline_seconds)
            deadline.refuse_if_over(until)
        if access.scope is not None:
            self._require(access.scope, environ)
        if self._limits is not None and access.limited:
            self._count(self._limits, environ)

    def _require(self, scope: Scope, environ: WSGIEnvironment) -> None:
        if self._authenticator is None:
            # Changing the model changes what everyone gets: that is for programs on this host.
            if scope is Scope.MODEL_WRITE and not is_on_this_host(environ):
                raise refusal_of_others(scope)
            return
        try:
            caller = self._authenticator.caller(environ)
        except NotAuthenticated:
            if self._limits is not None:  # who guesses keys has an address
                self._count(self._limits, environ)
            raise
        environ[_REQUEST].caller, environ[_COUNTED_AS] = caller.name, caller.counted_as
        if scope not in caller.scopes:
            raise refusal_of(scope)

    @staticmethod
    def _count(limits: RateLimits, environ: WSGIEnvironment) -> None:
        if _COUNTED_AS not in environ:
            environ[_COUNTED_AS] = counted_as(environ)
        limits.take_request(environ[_COUNTED_AS], environ)

    def admit_rows(self, rows: int) -> None:
        """Let the model be asked for so many *rows*: the last step before it is.

        Raises `DeadlineExceeded` or `RateLimited`.
        """
        environ = request.environ
        deadline.refuse_if_over(environ[_DEADLINE])
        if self._limits is not None:
            self._limits.take_rows(environ[_COUNTED_AS], rows, environ)


def init_app(app: Flask, guard: Guard) -> None:
    """Have *guard* look at each request of *app*."""
    app.extensions[_EXTENSION] = guard
    app.before_request(guard.check)


def guard_of(app: Flask) -> Guard:
    """Return the guard of *app*."""
    return cast(Guard, app.extensions[_EXTENSION])


def admit_rows(rows: int) -> None:
    """Let the model be asked for so many *rows*, in the current request: the last step before it is."""
    guard_of(current_app).admit_rows(rows)
