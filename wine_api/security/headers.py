"""Headers of every answer: those that keep browsers safe, and how the caller stands with the rate limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wine_api.security import cors
from wine_api.security.rate_limit import STANDING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_POLICY = "Content-Security-Policy"
_ALWAYS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
# What answers with JSON needs nothing of a browser; pages set a policy of their own.
_NOTHING = (_POLICY, "default-src 'none'; frame-ancestors 'none'")
# Only where the caller came by TLS, as a trusted proxy says: elsewhere browsers ignore it, and must.
_TLS_ONLY = ("Strict-Transport-Security", "max-age=31536000")


def of_answer_without_application(origins: Collection[str], origin: str | None) -> dict[str, str]:
    """Return the headers of an answer, for a page of *origin*, that the application has no part in.

    *origins* are those whose pages may read answers. Whether the caller came by TLS, only the application knows.
    """
    return dict([*_always(depends_on_origin=bool(origins)), _NOTHING]) | cors.headers_for(origins, origin)


def _always(*, depends_on_origin: bool) -> tuple[tuple[str, str], ...]:
    return (*_ALWAYS, ("Vary", "Origin")) if depends_on_origin else _ALWAYS


class SafeHeaders:
    """WSGI middleware that adds the headers.

    Here and not in Flask, where looking through the headers of an answer costs more than all the rest of the guard.
    *limit_policy* is what the rate limits are, if there are any; *depends_on_origin* is whether pages of some other
    origins may read answers: then no cache may hand one origin's answer to another.
    """

    def __init__(self, application: WSGIApplication, limit_policy: str | None, *, depends_on_origin: bool) -> None:
        self._application = application
        self._limit_policy = limit_policy
        self._always = _always(depends_on_origin=depends_on_origin)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""

        def start_safe_response(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None = None,
        ) -> Any:
            added = [*headers, *self._always]
            for name, _ in headers:
                if name == _POLICY:
                    break
            else:
                added.append(_NOTHING)
            if environ["wsgi.url_scheme"] == "https":
                added.append(_TLS_ONLY)
            if self._limit_policy is not None and (standing := environ.get(STANDING)):
                added.append(("RateLimit-Policy", self._limit_policy))
                added.append(("RateLimit", standing))
            return start_response(status, added, exc_info)

        return self._application(environ, start_safe_response)
