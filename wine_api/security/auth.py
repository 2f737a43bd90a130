"""Who calls: by an API key, by a token, or by nothing but an address."""

from __future__ import annotations

import ipaddress
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from wine_api.config import InvalidSetting, Settings
from wine_api.errors import NotAllowed, NotAuthenticated
from wine_api.security.access import Caller, Scope
from wine_api.security.keys import InvalidKeyFile, KeyFile
from wine_api.security.proxies import came_through_a_proxy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from wine_api.security.tokens import Tokens

LAST_GOOD_KEYS = "api-keys.json"  # in STATE_DIR
_REALM = 'Bearer realm="wine-api"'
# What a Host says that names this one, with its port or without: no name of the internet is without a dot.
_THIS_HOST = re.compile(r"([A-Za-z0-9-]+|127\.0\.0\.1|\[::1\])(:[0-9]+)?")


def build_authenticator(settings: Settings) -> Authenticator | None:
    """Return what says who calls, or None where nobody needs a key. Raises `InvalidSetting`."""
    if settings.is_open:
        return None
    return Authenticator(_key_file(settings), _tokens(settings))


def _key_file(settings: Settings) -> KeyFile | None:
    if settings.api_keys_file is None:
        return None
    keys = KeyFile(settings.api_keys_file, settings.state_folder / LAST_GOOD_KEYS)
    try:
        keys.require()
    except InvalidKeyFile as error:
        raise InvalidSetting(f"API_KEYS_FILE must be a file of API keys; {error}") from error
    return keys


def _tokens(settings: Settings) -> Tokens | None:
    if settings.jwt_jwks is None:
        return None
    # Imported here: most installations have no identity provider.
    from wine_api.security.tokens import Tokens

    return Tokens.from_settings(settings)


class Authenticator:
    """Says who calls, by the key or the token that everybody needs."""

    def __init__(self, keys: KeyFile | None, tokens: Tokens | None) -> None:
        self._keys = keys
        self._tokens = tokens

    def caller(self, environ: WSGIEnvironment) -> Caller:
        """Return who has the key or the token in *environ*. Raises `NotAuthenticated`."""
        key = environ.get("HTTP_X_API_KEY")
        token = None if key is not None else _bearer(environ.get("HTTP_AUTHORIZATION", ""))
        presented = key if key is not None else token
        if presented is None:
            raise NotAuthenticated("Send an API key as X-API-Key, or a key or token as Authorization: Bearer.", _REALM)
        caller = None if self._keys is None else self._keys.ring().find(presented, time.time())
        if caller is None and token is not None and self._tokens is not None:
            caller = self._tokens.find(token)
        if caller is None:
            raise NotAuthenticated(
                "The API key or token is unknown, expired or revoked.", f'{_REALM}, error="invalid_token"'
            )
        return caller


def refusal_of(scope: Scope) -> NotAllowed:
    """Return what is said to who has a key or a token, but not *scope*."""
    return NotAllowed(f"The API key or token does not have the scope {scope}.", scope, _challenge(scope))


def refusal_of_others(scope: Scope) -> NotAllowed:
    """Return what is said to who is not on this host, where that is what *scope* takes."""
    detail = "Where no API keys are set up, only programs on the same host may do this."
    return NotAllowed(detail, scope, _challenge(scope))


def _challenge(scope: Scope) -> str:
    return f'{_REALM}, error="insufficient_scope", scope="{scope}"'


def _bearer(header: str) -> str | None:
    scheme, _, token = header.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def counted_as(environ: WSGIEnvironment) -> str:
    """Return what the rate limits count the address of *environ* as."""
    return _network_of(environ.get("REMOTE_ADDR", ""))


@lru_cache(maxsize=4096)
def _network_of(address: str) -> str:
    # Who has one address of IPv6 has as many as they like: their network is what can be counted.
    try:
        found = ipaddress.ip_address(_without_port(address).partition("%")[0])
    except ValueError:
        return "address unknown"
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return f"address {found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False)}"


def _without_port(address: str) -> str:
    # Some proxies forward the port as well (192.0.2.7:5555, [2001:db8::5]:443): another one for each connection.
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def is_on_this_host(environ: WSGIEnvironment) -> bool:
    """Whether a program on this host sends the request, on its own behalf.

    Not if it came through a proxy, whatever that says: a proxy on this host would make everybody local. And not if a
    web page has it sent from a browser on this host: its origin, or the name that it calls this host by, tells. Our
    own documentation is such a page, and the only one that may.
    """
    host = environ.get("HTTP_HOST", "localhost")
    own_origin = f"{environ['wsgi.url_scheme']}://{host}"
    return (
        _is_loopback(environ.get("REMOTE_ADDR", ""))
        and not came_through_a_proxy(environ)
        and _THIS_HOST.fullmatch(host) is not None
        and environ.get("HTTP_ORIGIN", own_origin) == own_origin
        and environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin")
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
