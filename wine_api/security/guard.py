"""What every request has to pass before its view is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from flask import Flask, request
from werkzeug.exceptions import NotFound

from wine_api.errors import NotAllowed, NotAuthenticated
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
_ADMITTED_TO = "wine_api.admitted_to"


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
        """Raise unless the current request of Flask may go on to its view."""
        seen = request._get_current_object()  # type: ignore[attr-defined]  # each look through the proxy costs
        if seen.url_rule is not None:  # else there is no such address, or method: Flask says so
            self.admit(seen.environ, seen.url_rule.endpoint)

    def admit(self, environ: WSGIEnvironment, endpoint: str) -> None:
        """Raise unless the request in *environ* may go on to *endpoint*; what was admitted before is not counted again.

        Raises `NotAuthenticated`, `NotAllowed`, `RateLimited`, `InvalidRequest`, `DeadlineExceeded`, or `NotFound`
        for a route that nobody has opened.
        """
        if environ.get(_ADMITTED_TO) == endpoint:
            return
        access = self._routes.get(endpoint)
        if access is None:  # nobody has said who may call it
            raise NotFound
        refusal = None if access.scope is None else self._refusal(access.scope, environ)
        # Who is refused is counted wherever that was: guesses, above all.
        if self._limits is not None and (access.limited or refusal is not None):
            self._count(self._limits, environ)
        if refusal is not None:
            raise refusal
        if access.scope is Scope.PREDICT:
            environ[_DEADLINE] = until = deadline.deadline_of(environ, self._deadline_seconds)
            deadline.refuse_if_over(until)
        environ[_ADMITTED_TO] = endpoint

    def _refusal(self, scope: Scope, environ: WSGIEnvironment) -> NotAuthenticated | NotAllowed | None:
        """Return what to say to who sends *environ* and may not do what takes *scope*, or None if they may."""
        if self._authenticator is None:
            # Changing the model changes what everyone gets: that is for programs on this host.
            if scope is Scope.MODEL_WRITE and not is_on_this_host(environ):
                return refusal_of_others(scope)
            return None
        try:
            caller = self._authenticator.caller(environ)
        except NotAuthenticated as error:
            return error
        environ[_REQUEST].caller, environ[_COUNTED_AS] = caller.name, caller.counted_as
        return None if scope in caller.scopes else refusal_of(scope)

    @staticmethod
    def _count(limits: RateLimits, environ: WSGIEnvironment) -> None:
        if _COUNTED_AS not in environ:
            environ[_COUNTED_AS] = counted_as(environ)
        limits.take_request(environ[_COUNTED_AS], environ)

    def admit_rows(self, environ: WSGIEnvironment, rows: int) -> None:
        """Let the model be asked for so many *rows* by the request in *environ*: the last step before it is.

        Raises `DeadlineExceeded` or `RateLimited`.
        """
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
