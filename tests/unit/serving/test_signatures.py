"""Only a card signed by a trusted key, byte for byte, is accepted."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wine_api.errors import ModelRejected
from wine_api.serving.signatures import InvalidPublicKey, parse_public_keys, verify

OURS = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
THEIRS = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
CARD = b'{"name": "wine_quality_model"}'


def raw(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signed(key: Ed25519PrivateKey, content: bytes = CARD) -> bytes:
    return base64.b64encode(key.sign(content))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(raw(OURS), id="base64"),
        pytest.param(pem(OURS), id="PEM"),
        pytest.param(f"{raw(THEIRS)}, {raw(OURS)}", id="several"),
        pytest.param(f"{pem(THEIRS)}\n{pem(OURS)},{raw(THEIRS)}\n", id="mixed"),
    ],
)
def test_signature_by_any_of_the_keys_is_accepted(text: str) -> None:
    verify(CARD, signed(OURS) + b"\n", parse_public_keys(text))


@pytest.mark.parametrize(
    ("card", "signature", "reason"),
    [
        pytest.param(CARD, None, "unsigned", id="no signature"),
        pytest.param(None, signed(OURS), "unsigned", id="no card"),
        pytest.param(CARD, signed(THEIRS), "bad_signature", id="other key"),
        pytest.param(CARD + b" ", signed(OURS), "bad_signature", id="card changed after signing"),
        pytest.param(CARD, signed(OURS, b"other card"), "bad_signature", id="signature of another card"),
        pytest.param(CARD, b"not base64!", "malformed_signature", id="not base64"),
        pytest.param(CARD, base64.b64encode(b"short"), "bad_signature", id="too short"),
        pytest.param(CARD, b"", "bad_signature", id="empty"),
    ],
)
def test_everything_else_is_refused(card: bytes | None, signature: bytes | None, reason: str) -> None:
    with pytest.raises(ModelRejected) as refused:
        verify(card, signature, parse_public_keys(raw(OURS)))

    assert (refused.value.gate, refused.value.reason) == ("signature", reason)


def test_no_text_is_no_keys() -> None:
    assert parse_public_keys(" ,\n") == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nonsense", id="not base64"),
        pytest.param(base64.b64encode(b"short").decode(), id="too short"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", id="broken PEM"),
        pytest.param(
            generate_private_key(SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode(),
            id="another kind of key",
        ),
    ],
)
def test_what_is_not_a_key_is_an_error(text: str) -> None:
    with pytest.raises(InvalidPublicKey):
        parse_public_keys(text)
