"""Nobody may read a secret: what tests give to a service is looked for in all that it answers and writes.

Those are keys and tokens that are sent, passwords in the environment, and some that are planted there for this alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# A service has more in its environment than it knows of, and SDKs find their own.
PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted+secret/access+key",
    "DATABASE_PASSWORD": "planted-password-of-somebody-else",
    "GITHUB_TOKEN": "planted-token-of-somebody-else",
}
_SHORTEST = 12  # characters: less is found by chance
_SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|PRIVATE", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:([^/@\s]+)@")
_CREDENTIAL_HEADER = re.compile(rb"(?im)^(?:x-api-key|authorization):[ \t]*(?:(?:bearer|basic)[ \t]+)?(\S+)")


def in_environment(environment: Mapping[str, str]) -> set[bytes]:
    """Return the secrets of an *environment*."""
    named = [value for name, value in environment.items() if _SECRET_NAME.search(name)]
    in_urls = [found for value in environment.values() for found in _PASSWORD_IN_URL.findall(value)]
    return _long_enough(value.encode() for value in named + in_urls)


def in_request(head: bytes) -> set[bytes]:
    """Return the credentials that the headers of a request carry."""
    return _long_enough(_CREDENTIAL_HEADER.findall(head))


def in_headers(headers: Mapping[str, object]) -> set[bytes]:
    """Return the credentials in *headers*."""
    return in_request("\n".join(f"{name}: {value}" for name, value in headers.items()).encode("utf-8", "replace"))


def check(content: bytes, secrets: Iterable[bytes], where: str) -> None:
    """Raise AssertionError if one of *secrets* is in *content*, or the last part of one, as of a token."""
    for secret in secrets:
        assert secret not in content, f"{where} tells the secret {secret!r}"
        last = secret.rpartition(b".")[2]  # of a token, that is the signature
        assert len(last) < _SHORTEST or last not in content, f"{where} tells a part of {secret!r}"


def _long_enough(secrets: Iterable[bytes]) -> set[bytes]:
    return {secret for secret in secrets if len(secret) >= _SHORTEST}
