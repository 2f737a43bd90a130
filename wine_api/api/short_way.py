"""The short way to a prediction: what nearly every request needs, without what Flask does around it.

Flask takes 50 µs for an empty request, which is twice what the model takes. A request that is beyond doubt, with no
query, from no web page, is answered here; every other goes through Flask, and so does every error: they have one home.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, request

from wine_api.api import predict
from wine_api.api.json import MEDIA_TYPE, read_body
from wine_api.observability.requests import observed
from wine_api.schemas.well_formed import read_wine, read_wines
from wine_api.security.guard import Guard, guard_of
from wine_api.services import Services
from wine_api.serving.wine import Matrix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_REFUSED = "wine_api.refused"

Read = Callable[[bytes], Matrix | None]
Answer = Callable[["WSGIEnvironment", Services, Guard, Matrix, bool], bytes]


@dataclass(frozen=True, slots=True)
class _Route:
    """A route that has a short way: its *endpoint* in Flask, and how to read and to answer a request for it."""

    endpoint: str
    read: Read
    answer: Answer


class ShortWay:
    """WSGI middleware that answers plain requests for predictions, and leaves the others to *app*."""

    def __init__(self, app: Flask, services: Services) -> None:
        self._app = app
        self._application = app.wsgi_app
        self._services = services
        self._routes = {
            "/predict": _Route("predict.predict", read_wine, predict.answer_for_one),
            "/predict/batch": _Route("predict.predict_batch", self._read_wines, predict.answer_for_many),
        }

    def _read_wines(self, body: bytes) -> Matrix | None:
        return read_wines(body, self._services.settings.max_batch_rows)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        route = self._routes.get(environ["PATH_INFO"])
        if route is None or not _is_plain(environ):
            return self._application(environ, start_response)
        try:
            content = self._answer(environ, route)
        except Exception as error:
            environ[_REFUSED] = error
            content = None
        if content is None:
            return self._application(environ, start_response)
        observed(environ).route = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(content)))])
        return [content]

    def _answer(self, environ: WSGIEnvironment, route: _Route) -> bytes | None:
        guard = guard_of(self._app)
        guard.admit(environ, route.endpoint)
        with self._services.spans.span("validate"):
            body = read_body(environ, self._services.settings.max_body_bytes)
            wines = route.read(body)
        if wines is None:
            environ["wsgi.input"] = io.BytesIO(body)  # for who reads it next
            return None
        return route.answer(environ, self._services, guard, wines, False)


def _is_plain(environ: WSGIEnvironment) -> bool:
    """Whether nothing is asked for but a prediction; what a page of another origin may do, Flask's hooks know."""
    return (
        environ["REQUEST_METHOD"] == "POST"
        and environ.get("CONTENT_TYPE") == MEDIA_TYPE
        and not environ.get("QUERY_STRING")
        and "HTTP_ORIGIN" not in environ
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def init_app(app: Flask, services: Services) -> None:
    """Let plain requests take the short way around *app*."""

    @app.before_request
    def tell_what_was_refused() -> None:
        error: Any = request.environ.get(_REFUSED)
        if error is not None:
            raise error

    app.wsgi_app = ShortWay(app, services)  # type: ignore[method-assign]
