"""Whose word counts for who is calling and under which address."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

from wine_api.config import Network

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A prefix goes into links: anything but a plain path could lead them to another host.
_PLAIN_PREFIX = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+/?")
_FORWARDED = tuple(f"HTTP_X_FORWARDED_{name}" for name in ("FOR", "PROTO", "HOST", "PREFIX"))
# What proxies of all kinds leave behind: these, and more of X-Forwarded-* than anyone has listed.
_TRACES = ("HTTP_VIA", "HTTP_X_REAL_IP")
_CAME_THROUGH = "wine_api.proxied"


def came_through_a_proxy(environ: WSGIEnvironment) -> bool:
    """Whether anything says that a proxy, trusted or not, passed the request on."""
    return _CAME_THROUGH in environ or any("FORWARDED" in name or name in _TRACES for name in environ)


class TrustedProxies:
    """WSGI middleware that believes X-Forwarded-For, -Proto, -Host and -Prefix from *networks* only."""

    def __init__(self, application: WSGIApplication, networks: Sequence[Network]) -> None:
        self._application = application
        self._networks = tuple(networks)
        self._behind_proxy = ProxyFix(application, x_for=1, x_proto=1, x_host=1, x_prefix=1)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, seen as its caller sent it."""
        if not (  # spelled out, as a loop costs every request more than all that follows
            "HTTP_X_FORWARDED_FOR" in environ
            or "HTTP_X_FORWARDED_PROTO" in environ
            or "HTTP_X_FORWARDED_HOST" in environ
            or "HTTP_X_FORWARDED_PREFIX" in environ
        ):
            return self._application(environ, start_response)
        environ[_CAME_THROUGH] = True  # the headers that say so may be gone in a moment
        if not _PLAIN_PREFIX.fullmatch(environ.get("HTTP_X_FORWARDED_PREFIX", "/-")):
            del environ["HTTP_X_FORWARDED_PREFIX"]
        if self._trusted(environ.get("REMOTE_ADDR", "")):
            return self._behind_proxy(environ, start_response)
        for header in _FORWARDED:
            environ.pop(header, None)
        return self._application(environ, start_response)

    def _trusted(self, address: str) -> bool:
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:  # a Unix socket has no address: whoever may connect to it is on this host
            return address == ""
        return any(peer in network for network in self._networks)
