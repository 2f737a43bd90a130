"""The OpenAPI document: written at start from the docstrings of the views, the schemas and the errors."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from apispec import APISpec, BasePlugin
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_instance
from apispec_webframeworks.flask import FlaskPlugin
from flask import Flask
from marshmallow import Schema, fields

from wine_api import errors
from wine_api.api.error_handlers import PROBLEM_MEDIA_TYPE
from wine_api.api.examples import RED, explain, named_examples
from wine_api.config import Settings
from wine_api.errors import WineError
from wine_api.schemas.base import RequestSchema
from wine_api.schemas.model import ReloadRequest
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest
from wine_api.schemas.problem import ProblemSchema
from wine_api.schemas.wine import WineArrayOrObject, WineFeatures, WineObject
from wine_api.security import deadline
from wine_api.security.access import ANYONE, Access, Scope
from wine_api.security.guard import guard_of
from wine_api.serving.wine import FEATURE_COUNT, FEATURE_NAMES

# Where the document says that the service is; whoever hands it out puts the real address in its place.
EXAMPLE_URL = "http://127.0.0.1:8000"

# The deadline is in words, not a parameter: tools that try all values would take what 0 gets for our fault.
_DESCRIPTION = f"""
Says how good a wine is, from eleven physico-chemical measurements. Ask with

```sh
curl {EXAMPLE_URL}/predict -H 'Content-Type: application/json' \\
  -d '{json.dumps({"features": RED})}'
```

or in Swagger UI, at `/docs`: open **POST /predict** and press *Execute*.

Every answer carries an `X-Request-ID`; one that you send is kept. Errors are problem documents (RFC 9457) with a stable
`code`.

A prediction may carry `{deadline.HEADER}`: for how many milliseconds after its arrival it is worth answering. After
that the model is not asked (503 `deadline_exceeded`); the service may have a shorter limit of its own.
"""

_TAGS = {
    "predictions": "How good is this wine?",
    "model": "What is in use, and bringing another one into use",
    "health": "For people, and for whoever starts and stops the service",
    "service": "The start page and the metrics",
    "docs": "These pages",
}

_NAMES_IN_WORDS = (
    "Names are matched without case, spaces, underscores, dots and hyphens, and with the British spelling: `pH`, "
    "`fixed acidity`, `Fixed.Acidity` and `freeSulphurDioxide` are all understood. Their order does not matter. "
    "A name that is unknown, missing or given twice is refused, and the answer says which."
)
# What is to be said of a schema to whoever sends it; the docstrings of the others serve as they are.
_DESCRIPTIONS: dict[type[Schema], str] = {
    PredictRequest: "One wine, in exactly one of two forms: `features` or `wine_features`.",
    PredictBatchRequest: (
        "Many wines, in exactly one of two forms: `features_list` or `wine_features_list`. "
        "One bad row refuses the batch, and the answer points to it. At most {most_rows} wines; more get 413."
    ),
    ReloadRequest: "Which version to bring into use. Without one, what the store has under `MODEL_KEY`.",
    WineFeatures: f"A wine as eleven named numbers. {_NAMES_IN_WORDS}",
}

_BY_NAME = {"$ref": "#/components/schemas/WineFeatures"}
_BY_POSITION = {"$ref": "#/components/schemas/WineNumbers"}

_HEADERS = {
    "X-Request-ID": {"description": "The id of the request: yours, or a new one.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "What to send: see RFC 6750.", "schema": {"type": "string"}},
}
_INCLUDE = {
    "description": "What else to answer: the probability of each label.",
    "schema": {"type": "string", "enum": ["probabilities"]},
}
_METRIC_NAMES = {
    "name": "name[]",
    "description": "Only the metrics of these names.",
    "schema": {"type": "array", "items": {"type": "string"}},
}
_REQUEST_ID = {
    "description": (
        "An id of your own, to find this request in the answer and in the log: up to 128 letters, digits and "
        "`._:/+=@-`, a letter or digit first. Anything else is replaced."
    ),
    "schema": {"type": "string"},
}
_SECURITY_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token (JWT) of the identity provider that the operator trusts.",
    },
}

# Files of the documentation pages.
_NOT_PART_OF_THE_API = frozenset({"flasgger.static"})

_ERRORS_OF_BODIES = (
    errors.MalformedBody,
    errors.InvalidJSON,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
    errors.InvalidRequest,
)
_HEADERS_OF_ERRORS: dict[type[WineError], str] = {
    errors.NotAuthenticated: "WWW-Authenticate",
    errors.NotAllowed: "WWW-Authenticate",
    errors.RateLimited: "Retry-After",
    errors.ModelNotLoaded: "Retry-After",
}
_OTHER_PROBLEM = "Any other problem, such as 405 `method_not_allowed`."


def write_document(app: Flask, settings: Settings) -> dict[str, Any]:
    """Write the document of all routes of *app* that answer to an operation."""
    spec = APISpec(
        title=settings.api_title,
        version=settings.api_version,
        openapi_version="3.1.0",
        info={"description": _DESCRIPTION.strip(), "license": {"name": "MIT License"}},
        servers=[{"url": EXAMPLE_URL}],
        plugins=[FlaskPlugin(), _OperationsPlugin(is_open=settings.is_open), _SchemasPlugin(settings.max_batch_rows)],
    )
    for tag, description in _TAGS.items():
        spec.tag({"name": tag, "description": description})
    _add_shared_parts(spec)
    for endpoint, view in app.view_functions.items():
        if endpoint not in _NOT_PART_OF_THE_API:
            spec.path(view=view, app=app, access=guard_of(app).access_of(endpoint) or ANYONE)
    return spec.to_dict()


def _add_shared_parts(spec: APISpec) -> None:
    """Add what the views and the schemas refer to by name."""
    parts = spec.components
    parts.schema("WineFeatures", schema=WineFeatures)
    parts.schema("WineNumbers", _numbers_in_order(parts.schemas["WineFeatures"]))
    for name, example in named_examples().items():
        parts.example(name, example)
    for name, header in _HEADERS.items():
        parts.header(name, header)
    parts.parameter("include", "query", _INCLUDE)
    parts.parameter("metric_names", "query", _METRIC_NAMES)
    parts.parameter("X-Request-ID", "header", _REQUEST_ID)
    for name, scheme in _SECURITY_SCHEMES.items():
        parts.security_scheme(name, scheme)


class _OperationsPlugin(BasePlugin):
    """Completes operations with what need not be repeated in each docstring.

    Where *is_open*, nobody needs a key.

    The summary is the docstring's first line, and the description its other paragraphs. `errors` in the docstring
    names the classes of errors.py that the operation can end with, besides those that any request can meet.
    """

    def __init__(self, *, is_open: bool) -> None:
        self._open: list[dict[str, list[str]]] = [{}] if is_open else []

    def operation_helper(
        self,
        path: str | None = None,
        operations: dict[str, Any] | None = None,
        *,
        view: Callable[..., Any] | None = None,
        access: Access = ANYONE,
        **kwargs: Any,
    ) -> None:
        """Complete the *operations* of *view*, which callers need *access* for."""
        summary, _, description = (inspect.getdoc(view) or "").partition("---")[0].partition("\n\n")
        for operation in (operations or {}).values():
            operation["summary"] = summary.strip().rstrip(".")
            if description.strip():
                operation["description"] = description.strip()
            operation["responses"] |= _problems([*_errors_of(operation), *_errors_of_access(access)])
            if access.scope is not None:
                operation["security"] = [*({name: [str(access.scope)]} for name in _SECURITY_SCHEMES), *self._open]
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = "X-Request-ID"


def _errors_of(operation: dict[str, Any]) -> list[type[WineError]]:
    met = [getattr(errors, name) for name in operation.pop("errors", ())]
    of_body = _ERRORS_OF_BODIES if "requestBody" in operation else ()
    return [*of_body, *met, WineError]


def _errors_of_access(access: Access) -> list[type[WineError]]:
    """Return what a caller may meet before a view is called."""
    of_scope = [errors.NotAuthenticated, errors.NotAllowed, errors.IdentityProviderUnavailable] if access.scope else []
    of_limits = [errors.RateLimited, errors.Overloaded] if access.limited else []
    of_deadline = [errors.DeadlineExceeded] if access.scope is Scope.PREDICT else []
    return [*of_scope, *of_limits, *of_deadline]


def _problems(met: list[type[WineError]]) -> dict[int | str, dict[str, Any]]:
    """Return a response for each status of the errors *met*, and one for all others."""
    statuses = sorted({error.status for error in met})
    named: dict[int | str, dict[str, Any]] = {
        status: _problem([error for error in met if error.status == status]) for status in statuses
    }
    other = {"description": _OTHER_PROBLEM, "content": _content("method_not_allowed")}
    return {**named, "default": other}


def _problem(met: list[type[WineError]]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "\n\n".join(f"`{error.code}`: {explain(error)}" for error in met),
        "content": _content(*(error.code for error in met)),
    }
    promised = {name: name for error, name in _HEADERS_OF_ERRORS.items() if error in met}
    return response | ({"headers": promised} if promised else {})


def _content(*codes: str) -> dict[str, Any]:
    return {PROBLEM_MEDIA_TYPE: {"schema": ProblemSchema, "examples": {code: code for code in codes}}}


class _SchemasPlugin(MarshmallowPlugin):
    """Translates our schemas, and the fields that apispec does not know."""

    def __init__(self, most_rows: int) -> None:
        super().__init__()
        self._most_rows = most_rows

    def init_spec(self, spec: APISpec) -> None:
        """Get ready to translate for *spec*."""
        super().init_spec(spec)
        assert self.converter is not None  # noqa: S101  # nosec B101  # just made
        self.converter.add_attribute_function(  # type: ignore[no-untyped-call]  # of apispec
            _wine_to_properties
        )

    def schema_helper(  # type: ignore[override]  # apispec's own plugin breaks the signature of its base
        self, name: str, definition: Any, schema: Any = None, **kwargs: Any
    ) -> Any:
        """Translate *schema*, and say what it is for."""
        translated = super().schema_helper(  # type: ignore[no-untyped-call]  # of apispec
            name, definition, schema=schema, **kwargs
        )
        if translated is None:
            return None
        kind = type(resolve_schema_instance(schema))
        description = _DESCRIPTIONS.get(kind) or inspect.cleandoc(kind.__doc__ or "")
        translated["description"] = description.replace("{most_rows}", str(self._most_rows))
        if not issubclass(kind, (RequestSchema, WineFeatures)):  # an answer: later versions may say more
            translated.pop("additionalProperties", None)
        if hasattr(kind, "forms"):  # no other field is allowed, so exactly one is exactly one form
            translated |= {"minProperties": 1, "maxProperties": 1}
        return translated


def _wine_to_properties(self: Any, field: fields.Field[Any], **kwargs: Any) -> dict[str, Any]:
    if isinstance(field, WineObject):
        return _BY_NAME
    if isinstance(field, WineArrayOrObject):
        return {"oneOf": [_BY_POSITION, _BY_NAME]}
    if isinstance(field, fields.List) and isinstance(field.inner, WineObject | WineArrayOrObject):
        # No maxItems: how many are too many is a limit of this service, like the size of a body, and not of the form.
        return {"minItems": 1}
    return {}


def _numbers_in_order(by_name: dict[str, Any]) -> dict[str, Any]:
    """Write the schema of a wine by position from the one *by_name*."""
    numbers = [{"title": name, **by_name["properties"][name]} for name in FEATURE_NAMES]
    return {
        "type": "array",
        "description": f"A wine as {FEATURE_COUNT} numbers in this order: {', '.join(FEATURE_NAMES)}.",
        "prefixItems": numbers,
        "minItems": FEATURE_COUNT,
        "maxItems": FEATURE_COUNT,
        "example": RED,
    }
