"""Tokens (JWT) of an identity provider, checked with its public keys."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from wine_api.config import InvalidSetting, Settings
from wine_api.errors import IdentityProviderUnavailable
from wine_api.security.access import Caller, Scope

logger = logging.getLogger(__name__)

_LEEWAY_SECONDS = 10  # by which the provider's clock may differ from ours
_FRESH_SECONDS = {"url": 300.0, "file": 1.0}  # for so long, keys are not asked for again
_PAUSE_SECONDS = 10.0  # between two attempts at most, whatever tokens come: nobody can make us flood the provider
_FETCH_SECONDS = 3.0
_MOST_BYTES = 1024 * 1024
_SMALLEST_RSA_BITS = 2048
_MOST_REMEMBERED = 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

# Which algorithms a key can be for that does not say so itself.
_BY_KEY_TYPE: Mapping[tuple[str, str | None], frozenset[str]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}


class InvalidJWKS(ValueError):
    """A document holds no key that a token could be checked with."""


@dataclass(frozen=True, slots=True)
class _Trusted:
    """A public key, for one algorithm."""

    key_id: str | None
    algorithm: str
    key: jwt.PyJWK


class PublicKeys:
    """The provider's keys, asked for now and then.

    What *fetch* returned last counts until it returns something new: a provider that is away changes nothing.
    """

    def __init__(self, fetch: Callable[[], bytes], algorithms: Collection[str], fresh_seconds: float) -> None:
        self._fetch = fetch
        self._algorithms = frozenset(algorithms)
        self._fresh_seconds = fresh_seconds
        self._pause_seconds = min(_PAUSE_SECONDS, fresh_seconds)
        self._lock = threading.Lock()
        self._keys: tuple[_Trusted, ...] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self.generation = 0

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key with *key_id*, if it is one for *algorithm*.

        The id only picks among the keys that are trusted already. Raises `IdentityProviderUnavailable` before there
        are any.
        """
        self.refresh(self._fresh_seconds)
        found = self._pick(key_id, algorithm)
        if found is None:
            self.refresh(self._pause_seconds)  # perhaps the provider has just begun to use a new key
            found = self._pick(key_id, algorithm)
        if not self._keys:
            raise IdentityProviderUnavailable(
                "The identity provider's keys cannot be had at the moment.", retry_after=int(_PAUSE_SECONDS)
            )
        return found

    def _pick(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        found = [known for known in self._keys if known.algorithm == algorithm and key_id in (None, known.key_id)]
        return found[0].key if len(found) == 1 else None

    def require(self) -> None:
        """Take the keys for the first time. Raises what reading and parsing them raises."""
        self._take(self._fetch())

    def refresh(self, seconds: float) -> None:
        """Take the provider's keys unless they, or an attempt, are younger than *seconds*."""
        now = time.monotonic()
        if now - self._fetched_at < seconds or now - self._tried_at < self._pause_seconds:
            return
        # While one asks, the others go on with the keys that there are; only without any, they wait too.
        if not self._lock.acquire(blocking=not self._keys):
            return
        try:
            if time.monotonic() - self._tried_at >= self._pause_seconds:
                self._tried_at = time.monotonic()
                self._take(self._fetch())
        except Exception as error:  # whatever answers there, its words may repeat the URL, with a secret in its query
            logger.warning("the identity provider's keys cannot be had", extra={"reason": type(error).__name__})
        finally:
            self._lock.release()

    def _take(self, content: bytes) -> None:
        keys = _trusted_keys(content, self._algorithms)
        self._fetched_at = time.monotonic()
        self._keys = keys
        self.generation += 1


class Tokens:
    """Says who a token's bearer is."""

    def __init__(
        self, keys: PublicKeys, *, issuer: str, audience: str, scope_claim: str, scopes: Mapping[str, Scope]
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._scope_claim = scope_claim
        self._scopes = scopes
        # Checking a signature costs more than everything else here; under their digest, no token can be read.
        self._remembered: dict[bytes, tuple[Caller, float, int]] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Tokens:
        """Return what *settings* want. Raises `InvalidSetting`."""
        place = settings.jwt_jwks or ""
        kind = "url" if "://" in place else "file"
        keys = PublicKeys(_fetcher(place), settings.jwt_algorithms, _FRESH_SECONDS[kind])
        if kind == "file":
            try:
                keys.require()
            except (OSError, ValueError, RecursionError) as error:
                raise InvalidSetting(
                    "JWT_JWKS must be an https:// URL or a file with a JSON Web Key Set that has a key for one of "
                    "JWT_ALGORITHMS"
                ) from error
        return cls(
            keys,
            issuer=settings.jwt_issuer or "",
            audience=settings.jwt_audience or "",
            scope_claim=settings.jwt_scope_claim,
            scopes=_scopes(settings.jwt_scopes),
        )

    def find(self, token: str) -> Caller | None:
        """Return the bearer of *token*, or None if it is not valid."""
        digest = hashlib.sha256(token.encode("utf-8", "backslashreplace")).digest()
        caller, until, generation = self._remembered.get(digest, (None, 0.0, -1))
        if caller is not None and time.time() < until and generation == self._keys.generation:
            self._keys.refresh(_FRESH_SECONDS["url"])
            return caller
        claims = self._check(token)
        if claims is None:
            return None
        caller = self._caller(claims)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (caller, claims["exp"] + _LEEWAY_SECONDS, self._keys.generation)
        return caller

    def _check(self, token: str) -> dict[str, Any] | None:
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.find(header.get("kid"), header["alg"])
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except IdentityProviderUnavailable:
            raise
        except Exception:  # whatever a token makes the library raise, it is not a valid one
            logger.debug("a token was refused", exc_info=True)
            return None
        return claims if _is_number(claims["exp"]) and _is_number(claims.get("nbf", 0)) else None

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        words = claims.get(self._scope_claim, ())
        words = words.split() if isinstance(words, str) else words
        listed = [word for word in words if isinstance(word, str)] if isinstance(words, (list, tuple)) else []
        subject = str(claims.get("sub") or claims.get("client_id") or claims.get("azp") or "")
        name = f"token {subject}"
        return Caller(name, name, frozenset(self._scopes[word] for word in listed if word in self._scopes))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scopes(pairs: Collection[tuple[str, str]]) -> dict[str, Scope]:
    if not pairs:
        return {str(scope): scope for scope in Scope}
    if not {ours for _, ours in pairs} <= {*Scope}:
        raise InvalidSetting(f"JWT_SCOPES must map to {', '.join(Scope)}, and to nothing else")
    return {theirs: Scope(ours) for theirs, ours in pairs}


def _trusted_keys(content: bytes, algorithms: frozenset[str]) -> tuple[_Trusted, ...]:
    document = json.loads(content)
    listed = document.get("keys") if isinstance(document, dict) else None
    found = [
        trusted
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
        for trusted in _usable(entry, algorithms)
    ]
    if not found:
        raise InvalidJWKS("there is no usable key")
    return tuple(found)


def _usable(entry: dict[str, Any], algorithms: frozenset[str]) -> list[_Trusted]:
    """Return the key in *entry* for each algorithm that it may be used with here; none if it is not for signatures."""
    key_id, key_type = entry.get("kid"), entry.get("kty")
    if not isinstance(key_type, str) or not isinstance(key_id, str | None) or entry.get("use", "sig") != "sig":
        return []
    try:
        possible = _BY_KEY_TYPE.get((key_type, None if key_type == "RSA" else entry.get("crv")), frozenset())
        if "alg" in entry:
            possible &= {entry["alg"]}
        return [
            _Trusted(key_id, algorithm, key)
            for algorithm in sorted(possible & algorithms)
            if not _is_weak(key := jwt.PyJWK(entry, algorithm))
        ]
    except Exception:  # whatever an odd entry makes Python or the library raise, the others count
        logger.debug("a key of the identity provider was skipped", exc_info=True)
        return []


def _is_weak(key: jwt.PyJWK) -> bool:
    return key.key_type == "RSA" and key.key.key_size < _SMALLEST_RSA_BITS


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The keys come from the address that the operator named, and from nowhere else."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """Follow no redirect."""


def _fetcher(place: str) -> Callable[[], bytes]:
    if "://" not in place:
        return Path(place).expanduser().read_bytes
    parts = urlsplit(place)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise InvalidSetting("JWT_JWKS must be an https:// URL or a file: keys that anyone can change prove nothing")
    opener = urllib.request.build_opener(_NoRedirects)

    def fetch() -> bytes:
        with opener.open(place, timeout=_FETCH_SECONDS) as response:
            content: bytes = response.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InvalidJWKS("the document is too large")
        return content

    return fetch
