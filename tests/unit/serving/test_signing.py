"""Who has the private key can sign a card, and nobody learns the key from an error."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from wine_api.serving.signatures import (
    InvalidPrivateKey,
    parse_private_key,
    parse_public_keys,
    public_key_line,
    sign,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
CARD = b'{"name": "wine_quality_model"}'


def pem(key: object, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())  # type: ignore[attr-defined]


def test_a_signed_card_is_accepted() -> None:
    verify(CARD, sign(CARD, KEY), (KEY.public_key(),))


def test_the_same_card_has_the_same_signature() -> None:
    assert sign(CARD, KEY) == sign(CARD, KEY)


def test_reads_a_private_key() -> None:
    assert sign(CARD, parse_private_key(pem(KEY))) == sign(CARD, KEY)


def test_a_public_key_fits_into_the_setting() -> None:
    line = public_key_line(KEY.public_key())

    assert parse_public_keys(line) == (KEY.public_key(),)
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(b"secret", "not a private key in PEM", id="nonsense"),
        pytest.param(b"", "not a private key in PEM", id="nothing"),
        pytest.param(pem(KEY)[:-40], "not a private key in PEM", id="cut off"),
        pytest.param(pem(generate_private_key(SECP256R1())), "not ed25519", id="another kind of key"),
        pytest.param(pem(KEY, BestAvailableEncryption(b"password")), "encrypted", id="encrypted"),
    ],
)
def test_says_what_is_wrong_with_a_key_and_nothing_of_it(text: bytes, complaint: str) -> None:
    with pytest.raises(InvalidPrivateKey, match=complaint) as caught:
        parse_private_key(text)

    assert "secret" not in str(caught.value)
