"""JSON in and out: strict in what is read, strict in what is written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

import orjson
from flask import Flask, Request, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import RequestEntityTooLarge

from wine_api.errors import BodyTooLarge, InvalidJSON, MalformedBody, UnsupportedMediaType
from wine_api.services import get_services

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

MEDIA_TYPE = "application/json"
_DEEPEST = 16
# Possessive, and content with a string that does not end: a pattern that tries again would take hours for 4 MB of \\".
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?+\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class StrictJSONProvider(JSONProvider):
    """Flask's JSON, written by orjson: keys in their order, and never NaN, which is not JSON."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return *obj* as JSON text."""
        return orjson.dumps(obj, option=orjson.OPT_NON_STR_KEYS).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Return the document that *s* holds."""
        return parse(s.encode() if isinstance(s, str) else s)


def init_app(app: Flask) -> None:
    """Make *app* write strict JSON."""
    app.json = StrictJSONProvider(app)


def dump(document: Any) -> bytes:
    """Return *document*, made of plain values, as JSON."""
    return orjson.dumps(document)


def read_json() -> Any:
    """Return the document in the body of the current request.

    Raises what `read_body` and `parse` raise.
    """
    return parse(read_body(request.environ, get_services().settings.max_body_bytes))


def read_optional_json() -> Any:
    """Return the document in the body of the current request, or an empty object if there is no body."""
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    return read_json() if has_body else {}


def read_body(environ: WSGIEnvironment, most_bytes: int) -> bytes:
    """Return the body of the request in *environ*, which must be announced as JSON.

    Raises `UnsupportedMediaType`, `BodyTooLarge` (before anything is read, if the length is told) or `MalformedBody`.
    """
    is_coded = "HTTP_TRANSFER_ENCODING" in environ
    if environ.get("CONTENT_TYPE") != MEDIA_TYPE or is_coded or "HTTP_CONTENT_ENCODING" in environ:
        _check_media_type(Request(environ, populate_request=False))
    told = environ.get("CONTENT_LENGTH", "")
    length = int(told) if told.isdecimal() and not is_coded else None
    too_large = f"The body may have at most {most_bytes} bytes."
    if (length or 0) > most_bytes:
        raise BodyTooLarge(too_large)
    try:
        body = _read_untold(environ, most_bytes) if length is None else environ["wsgi.input"].read(length)
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(too_large) from error
    except Exception as error:
        # The server below raises errors of its own for broken chunks; which ones is its affair.
        raise MalformedBody("The body broke off, or its chunks are malformed.") from error
    if len(body) > most_bytes:
        raise BodyTooLarge(too_large)
    if len(body) < (length or 0):
        raise MalformedBody("The body ended before its Content-Length.")
    return body


def _read_untold(environ: WSGIEnvironment, most_bytes: int) -> bytes:
    # One more than is allowed: where there is no Content-Length, Werkzeug cuts a body at the limit without a word.
    untold = Request(environ, populate_request=False)
    untold.max_content_length = most_bytes + 1
    return untold.get_data(cache=False)


def _check_media_type(request: Request) -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != MEDIA_TYPE or charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("Send the body as application/json in UTF-8.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without Content-Encoding.")
    # Gunicorn takes the chunks apart and leaves all else as it came.
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise UnsupportedMediaType("Send the body in no transfer coding but chunked.")


def parse(body: bytes) -> Any:
    """Return the document in *body*, or raise `InvalidJSON`: for what is not JSON, and for keys that come twice."""
    if _deeper_than(body, _DEEPEST):
        raise InvalidJSON(f"The body is nested deeper than {_DEEPEST} levels.")
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidJSON("The body is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"{error.msg}, at line {error.lineno}, column {error.colno}.") from error
    except ValueError as error:  # a whole number with thousands of digits
        raise InvalidJSON("A number has too many digits.") from error


def _deeper_than(body: bytes, levels: int) -> bool:
    """Whether brackets are nested deeper than *levels*, found without recursion: each pass peels off a level."""
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    # What is left over in pairs is too deep; what is not in pairs is for the parser to complain about.
    return b"[]" in brackets or b"{}" in brackets or brackets.count(b"[") + brackets.count(b"{") > levels


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise InvalidJSON("An object has the same key twice.")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"{name} is not JSON.")
