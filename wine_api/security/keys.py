"""API keys: the file that holds their digests, and following its changes."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wine_api.security.access import Caller, Scope

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # a revoked key is refused after this long at the latest
_MOST_BYTES = 4 * 1024 * 1024
_PREFIX = "wine_"  # lets people and scanners of leaked secrets see what it is
_FIELDS = frozenset({"name", "sha256", "scopes", "expires_at", "created_at"})
_NOBODY = bytes(32)


class InvalidKeyFile(ValueError):
    """The file of API keys cannot be used; the message says why, without anything that the file holds."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key: everything but the key itself. *expires_at* is in seconds since the epoch."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]
    expires_at: float | None = None

    @property
    def caller(self) -> Caller:
        """Return who comes with this key."""
        return Caller(self.name, f"key {self.name}", self.scopes)


def new_key() -> str:
    """Return a new key, of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> bytes:
    """Return the SHA-256 digest that stands for *key* in the file.

    A salted, slow hash would add nothing: nobody can guess 256 random bits.
    """
    # A header comes as Latin-1, whatever was sent; a key that is not ASCII is one that nobody has.
    return hashlib.sha256(key.encode("utf-8", "backslashreplace")).digest()


class KeyRing:
    """The keys of one state of the file."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_digest = {key.digest: (key, key.caller) for key in keys}

    def find(self, text: str, now: float) -> Caller | None:
        """Return who has the key *text*, or None if nobody has, or no longer."""
        digest = digest_of(text)
        # How long looking up a digest takes says nothing that helps: nobody can choose the digest of a guess, and
        # Python hashes with a secret of the process. The comparison that decides takes the same time for every digest.
        key, caller = self._by_digest.get(digest, (None, None))
        same = hmac.compare_digest(_NOBODY if key is None else key.digest, digest)
        if key is None or not same or (key.expires_at is not None and key.expires_at <= now):
            return None
        return caller


class KeyFile:
    """The keys that the file at *path* holds now.

    A file that has become unreadable changes nothing: the keys of its last good state count on. They are also kept at
    *last_good*, as digests, so that a worker that starts meanwhile has them too, not older ones.
    """

    def __init__(self, path: Path, last_good: Path) -> None:
        self._path = path
        self._last_good = last_good
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._content: bytes | None = None
        self._kept = False
        self._fault: str | None = None
        self._ring = KeyRing()

    def require(self) -> None:
        """Read the file for the first time. Raises `InvalidKeyFile`."""
        content = _read(self._path)
        self._ring, self._content = KeyRing(parse_keys(content)), content

    def ring(self) -> KeyRing:
        """Return the keys as they are, or were a moment ago."""
        # Lazily, by who needs them: no thread that could die, and the content decides, as times and inodes can mislead
        # (a file changed twice within a tick, a symbolic link that was swapped).
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._next_look = time.monotonic() + _LOOK_SECONDS
                self._lock.release()
        return self._ring

    def _look(self) -> None:
        try:
            content = _read(self._path)
            if content != self._content:
                self._ring, self._content = KeyRing(parse_keys(content)), content
                self._kept = False
                logger.info("API keys read", extra={"event": "keys_read"})
            if not self._kept:
                _replace(self._last_good, content, mode=0o600)
                self._kept = True
            self._fault = None
        except InvalidKeyFile as error:
            self._complain(str(error))
            self._take_last_good()
        except OSError as error:
            self._complain(f"the last good keys cannot be kept: {error.strerror}")

    def _complain(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            logger.error("API keys unreadable: the last good ones count on", extra={"reason": fault})

    def _take_last_good(self) -> None:
        # Another worker may have seen a newer state before the file broke.
        try:
            content = _read(self._last_good)
            if content != self._content:
                self._ring, self._content = KeyRing(parse_keys(content)), content
        except InvalidKeyFile:
            return


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidKeyFile(f"it cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidKeyFile("it is too large")
    return content


def parse_keys(content: bytes) -> list[ApiKey]:
    """Return the keys in the *content* of a file. Raises `InvalidKeyFile`."""
    return [_key(entry) for entry in _entries(content)]


def _entries(content: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:  # the message of the first would show a part of the file
        raise InvalidKeyFile("it is not JSON") from error
    if not isinstance(document, dict) or set(document) != {"keys"} or not isinstance(document["keys"], list):
        raise InvalidKeyFile('it is not an object with "keys", a list')
    entries = document["keys"]
    if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) and entry["name"] for entry in entries):
        raise InvalidKeyFile("a key has no name")
    for unique in ("name", "sha256"):
        if len({str(entry.get(unique)).lower() for entry in entries}) != len(entries):
            raise InvalidKeyFile(f"two keys have the same {unique}")
    return entries


def _key(entry: Mapping[str, Any]) -> ApiKey:
    position = f"the key {entry['name']!r}"
    if not set(entry) <= _FIELDS:  # a misspelt expires_at must not make a key that never expires
        raise InvalidKeyFile(f"{position} has a field that there is not")
    try:
        digest = bytes.fromhex(entry["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidKeyFile(f"{position} has no sha256 in hexadecimal") from error
    if len(digest) != 32:
        raise InvalidKeyFile(f"{position} has a sha256 of a wrong length")
    scopes = entry.get("scopes")
    if not isinstance(scopes, list) or not scopes or not all(scope in [*Scope] for scope in scopes):
        raise InvalidKeyFile(f"{position} has no scopes, or one that there is not")
    return ApiKey(entry["name"], digest, frozenset(map(Scope, scopes)), _moment(entry.get("expires_at"), position))


def _moment(text: Any, position: str) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise InvalidKeyFile(f"{position} has an expires_at that is not a time (2027-01-31T12:00:00Z)") from error
    if moment.tzinfo is None:
        raise InvalidKeyFile(f"{position} has an expires_at without a time zone")
    return moment.timestamp()


# Changing the file: what the `wine-api keys` commands do


class NoSuchKey(ValueError):
    """The file holds no key of that name."""


def create_key(path: Path, name: str, scopes: Sequence[Scope], expires_at: datetime | None) -> str:
    """Add a new key to the file at *path*, which is made if need be, and return the key.

    Raises `InvalidKeyFile`, also when there is a key of that name.
    """
    key = new_key()
    entry = {"name": name, "sha256": digest_of(key).hex(), "scopes": sorted(set(scopes))}
    entry |= {"created_at": _written(datetime.now(UTC))}
    entry |= {} if expires_at is None else {"expires_at": _written(expires_at)}
    with _changing(path) as entries:
        if any(known["name"] == name for known in entries):
            raise InvalidKeyFile(f"there is a key {name!r} already; give the new one another name, then revoke the old")
        entries.append(entry)
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take the key *name* out of the file at *path*. Raises `NoSuchKey` or `InvalidKeyFile`."""
    with _changing(path) as entries:
        kept = [entry for entry in entries if entry["name"] != name]
        if len(kept) == len(entries):
            raise NoSuchKey(f"there is no key {name!r}")
        entries[:] = kept


def list_keys(path: Path) -> list[ApiKey]:
    """Return what the file at *path* says of each key. Raises `InvalidKeyFile`."""
    return parse_keys(_read(path))


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def _changing(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Hand out the entries of the file, and write them back in one step; two that change it do not lose a key."""
    path = path.resolve()  # the file, not a symbolic link to it
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        entries = _entries(_read(path)) if path.exists() else []
        yield entries
        content = json.dumps({"keys": entries}, indent=1, ensure_ascii=False).encode() + b"\n"
        parse_keys(content)
        _replace(path, content, mode=path.stat().st_mode & 0o777 if path.exists() else 0o600)
    finally:
        os.close(folder)


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Put *content* at *path* in one step: a reader finds the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    os.replace(temporary, path)
