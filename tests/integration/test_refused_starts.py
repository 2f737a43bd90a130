"""Starts that could not go well: each ends with one line that names the variable, and shows no secret."""

from __future__ import annotations

import pytest

from tests.server import start_server

SECRET = "S3cretPart"
TOKENS = {"JWT_ISSUER": "https://id.example/", "JWT_AUDIENCE": "wine"}


@pytest.mark.parametrize(
    ("variable", "text", "others"),
    [
        ("RATE_LIMIT_STORAGE", f"redis://default:{SECRET}/rest@127.0.0.1:6379/0", {}),
        ("RATE_LIMIT_STORAGE", f"redis://127.0.0.1:6379/0?db={SECRET}", {}),
        ("RATE_LIMIT_STORAGE", f"redis://127.0.0.1:6379/0?nonsense={SECRET}", {"RATE_LIMIT": "5/minute"}),
        ("RATE_LIMIT_STORAGE", f"rediss://127.0.0.1:6379/0?ssl_cert_reqs={SECRET}", {}),
        ("JWT_JWKS", f"https://127.0.0.1:1/jw ks?token={SECRET}", TOKENS),
        ("JWT_JWKS", f"/nowhere/{SECRET}", TOKENS),
        ("JWT_SCOPES", f"wine={SECRET}", {"JWT_JWKS": "https://127.0.0.1:1/jwks", **TOKENS}),
        ("JWT_ISSUER", SECRET, {}),
        ("CORS_ORIGINS", "https://[::1", {}),
        ("MODEL_PUBLIC_KEYS", SECRET, {}),
        ("STATE_DIR", "/proc/nonexist", {}),
    ],
    ids=[
        "a password with a slash",
        "a database that is no number",
        "an option that Redis has not",
        "an option that TLS has not",
        "keys at an address with a space",
        "keys in a file that is not there",
        "a scope that there is not",
        "tokens without keys",
        "an origin that is no address",
        "no public key",
        "a folder that nobody can make",
    ],
)
def test_a_setting_that_cannot_work_stops_the_start_with_one_line(tmp_path, variable, text, others):
    server = start_server(tmp_path, {variable: text, **others})

    code = server.wait_for_end()

    assert code == 1
    (line,) = server.lines()
    assert (line["level"], line["message"]) == ("CRITICAL", "cannot start")
    assert line["reason"].startswith(f"{variable} must ")
    assert SECRET not in server.output
