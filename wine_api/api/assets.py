"""The files that the documentation pages load: a fixed list, so that no path of a caller's reaches the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from flask import Response, abort, send_file

_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_ONE_YEAR = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class _Asset:
    path: Path
    media_type: str
    digest: str


def _asset(path: Path) -> _Asset:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return _Asset(path, _MEDIA_TYPES[path.suffix], digest)


_OURS = Path(str(files("wine_api"))) / "static"
_SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"

_ASSETS: Mapping[str, _Asset] = MappingProxyType(
    {
        path.name: _asset(path)
        for path in (
            _SWAGGER_UI / "swagger-ui-bundle.js",
            _SWAGGER_UI / "swagger-ui.css",
            _OURS / "vendor" / "redoc" / "redoc.standalone.js",
            _OURS / "docs-init.js",
            _OURS / "docs.css",
            _OURS / "redoc-init.js",
            _OURS / "redoc.css",
            _OURS / "favicon.svg",
        )
    }
)


def digest_of(name: str) -> str | None:
    """Return what changes when the file *name* does, for its address; None if there is no such file."""
    asset = _ASSETS.get(name)
    return None if asset is None else asset.digest


def send_asset(name: str, digest: str | None) -> Response:
    """Answer with the file *name*; one that was asked for by its *digest* never changes, so browsers keep it."""
    asset = _ASSETS.get(name)
    if asset is None:
        abort(404)
    if digest != asset.digest:
        return send_file(asset.path, asset.media_type, etag=asset.digest)
    response = send_file(asset.path, asset.media_type, etag=asset.digest, max_age=_ONE_YEAR)
    response.cache_control.immutable = True
    return response
