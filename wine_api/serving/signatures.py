"""Signatures of model cards: who vouches for a model.

A digest beside an object proves that it arrived whole, not who wrote it. The signature is raw ed25519 over the bytes
of the card, which names the artifact's digest, so one signature covers both. It is kept as base64.
"""

from __future__ import annotations

import base64
import binascii
import re

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from wine_api.errors import ModelRejected

GATE = "signature"
_PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class InvalidPublicKey(ValueError):
    """A text is not an ed25519 public key."""


class InvalidPrivateKey(ValueError):
    """A text is not an ed25519 private key; the message says nothing of what it is."""


def parse_public_keys(text: str) -> tuple[Ed25519PublicKey, ...]:
    """Read the keys in *text*: base64 of 32 bytes each, or PEM blocks, separated by commas or white space.

    Several keys are how one is replaced: a model signed with any of them is accepted.
    """
    others = _PEM_BLOCK.sub(" ", text).replace(",", " ").split()
    return (*map(_from_pem, _PEM_BLOCK.findall(text)), *map(_from_base64, others))


def _from_pem(block: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(block.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidPublicKey("not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidPublicKey("a public key that is not ed25519")
    return key


def _from_base64(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        raise InvalidPublicKey("not the base64 of 32 bytes") from error


def public_key_line(key: Ed25519PublicKey) -> str:
    """Return *key* as one word that `MODEL_PUBLIC_KEYS` takes."""
    return base64.b64encode(key.public_bytes_raw()).decode("ascii")


def parse_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read the key in *pem*, which is not encrypted."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise InvalidPrivateKey("an encrypted private key, and nobody to ask for its password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidPrivateKey("not a private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidPrivateKey("a private key that is not ed25519")
    return key


def sign(card: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the signature of *card* as it is stored; the same card and key always make the same one."""
    return base64.b64encode(key.sign(card))


def verify(signed: bytes | None, signature: bytes | None, keys: tuple[Ed25519PublicKey, ...]) -> None:
    """Raise `ModelRejected` unless *signature* is one of *signed* by any of *keys*."""
    if signed is None or signature is None:
        raise ModelRejected(GATE, "unsigned", "The model is not signed, and MODEL_PUBLIC_KEYS asks for a signature.")
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ModelRejected(GATE, "malformed_signature", "The signature of the model card is not base64.") from error
    if not any(_is_by(key, raw, signed) for key in keys):
        raise ModelRejected(GATE, "bad_signature", "The model card was not signed as it is by a key that is trusted.")


def _is_by(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
