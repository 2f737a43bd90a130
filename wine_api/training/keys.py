"""The pair of files that a signing key is kept in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PRIVATE_KEY_NAME = "model-signing.key"
PUBLIC_KEY_NAME = "model-signing.pub"

_OWNER_ONLY = 0o600
_EVERYBODY = 0o644


def write_key_pair(private: Path, public: Path) -> Ed25519PublicKey:
    """Make a new key, write both halves of it as PEM, and return the public one.

    A file that exists is never overwritten: `FileExistsError` names it, and nothing is left behind.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(private, pem, _OWNER_ONLY)
    try:
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_new(public, pem, _EVERYBODY)
    except BaseException:
        private.unlink()
        raise
    return key.public_key()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # Nobody else can read the file at any moment: it is made with its mode, not given it afterwards.
    with open(path, "xb", opener=_making(mode)) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise


def _making(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)
