"""What looks for secrets in all that the tests see would find them."""

from __future__ import annotations

import pytest

from tests import secrecy

KEY = "wine_0123456789abcdef"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


@pytest.mark.parametrize(
    "headers",
    [{"X-API-Key": KEY}, {"x-api-key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"Host": "x", "authorization": KEY}],
)
def test_a_credential_that_is_sent_is_a_secret(headers):
    assert secrecy.in_headers(headers) == {KEY.encode()}


def test_passwords_of_an_environment_are_secrets():
    environment = {"RATE_LIMIT_STORAGE": "redis://:pass-of-redis@host/0", "MY_TOKEN": "token-of-somebody", "PORT": "80"}

    assert secrecy.in_environment(environment) == {b"pass-of-redis", b"token-of-somebody"}


@pytest.mark.parametrize("told", [KEY, TOKEN, TOKEN.rpartition(".")[2]])
def test_a_secret_that_is_told_is_found(told):
    with pytest.raises(AssertionError, match="the log tells"):
        secrecy.check(b'{"message":"%b"}' % told.encode(), {KEY.encode(), TOKEN.encode()}, "the log")


def test_what_is_no_secret_may_be_told():
    secrecy.check(b'{"caller":"shop","alg":"eyJhbGciOiJSUzI1NiJ9"}', {KEY.encode(), TOKEN.encode()}, "the log")
