"""The documentation: Swagger UI, hosted by flasgger, ReDoc, and the OpenAPI document that both show."""

from __future__ import annotations

from typing import Any, cast

from flasgger.base import APIDocsView, APISpecsView, Swagger
from flask import Blueprint, Flask, Response, current_app, make_response, render_template, request
from flask.typing import ResponseReturnValue

from wine_api.api.assets import digest_of, send_asset
from wine_api.api.openapi import EXAMPLE_URL, write_document
from wine_api.config import Settings

_EXTENSION = "docs"

# flasgger builds its links with this name.
blueprint = Blueprint("flasgger", __name__)

_NO_FRAMES = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_SWAGGER_UI_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " + _NO_FRAMES
)
# ReDoc writes style elements as it goes, and searches in a worker that it makes of a blob.
_REDOC_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src blob:; " + _NO_FRAMES
)


def init_app(app: Flask, settings: Settings) -> None:
    """Write the document of *app*, which must have all its routes by now."""
    document = write_document(app, settings)
    app.extensions[_EXTENSION] = _Docs(app, config=_config(settings), template=document)


def _config(settings: Settings) -> dict[str, Any]:
    specs = [{"endpoint": "openapi", "route": "/openapi.json"}]
    return {"title": settings.api_title, "specs": specs, "headers": []}


class _Docs(Swagger):  # type: ignore[misc]  # flasgger publishes no types
    """flasgger with a finished document, and with no routes but ours."""

    def register_views(self, app: Flask) -> None:
        """Do nothing: the blueprint above has all that is needed of flasgger's views."""

    def get_apispecs(self, endpoint: str = "openapi") -> dict[str, Any]:
        """Return the document as it is right where the current request came from, behind the prefix of a proxy too."""
        info, here = self.template["info"], request.url_root.rstrip("/")
        if request.host:
            info = {**info, "description": info["description"].replace(EXAMPLE_URL, here)}
        return {**self.template, "info": info, "servers": [{"url": request.script_root or "/"}]}


def _docs() -> _Docs:
    return cast(_Docs, current_app.extensions[_EXTENSION])


@blueprint.get("/docs", strict_slashes=False)
def docs() -> ResponseReturnValue:
    """Read and try this API: Swagger UI.

    ---
    get:
      operationId: get_docs
      tags: [docs]
      responses:
        200: {description: A page, content: {text/html: {schema: {type: string}}}}
    """
    page = APIDocsView(view_args={"config": _docs().config}).get()
    return _with_policy(page, _SWAGGER_UI_POLICY)


@blueprint.get("/redoc", strict_slashes=False)
def redoc() -> ResponseReturnValue:
    """Read this API: ReDoc.

    ---
    get:
      operationId: get_redoc
      tags: [docs]
      responses:
        200: {description: A page, content: {text/html: {schema: {type: string}}}}
    """
    page = render_template("redoc.html", title=_docs().config["title"])
    return _with_policy(page, _REDOC_POLICY)


@blueprint.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    """Get this document: OpenAPI 3.1.

    ---
    get:
      operationId: get_openapi
      tags: [docs]
      responses:
        200: {description: The document, content: {application/json: {schema: {type: object}}}}
    """
    return _fresh(APISpecsView(loader=_docs().get_apispecs).get())


# flasgger asks for its files by this endpoint.
@blueprint.get("/docs/assets/<filename>", endpoint="static")
def asset(filename: str) -> ResponseReturnValue:
    """Answer with a file of the pages. Not part of the API."""
    return send_asset(filename, request.args.get("v"))


@blueprint.url_defaults
def add_digest(endpoint: str, values: dict[str, Any]) -> None:
    """Name the content of a file in its address, so that browsers may keep it for good."""
    if endpoint == "flasgger.static" and (digest := digest_of(values["filename"])):
        values["v"] = digest


def _with_policy(page: str, policy: str) -> Response:
    response = make_response(page)
    response.headers["Content-Security-Policy"] = policy
    return _fresh(response)


def _fresh(response: Response) -> Response:
    # It says under which address it was asked for, and which files it needs.
    response.cache_control.no_cache = True
    return response
