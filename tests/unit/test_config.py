"""Settings: every one is parsed, a bad value is named, and an empty one is unset."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wine_api import __version__
from wine_api.config import InvalidSetting, Rate, Settings, settings_reference

DEFAULTS = Settings()
VARIABLES = {field.name: field.metadata["variable"] for field in dataclasses.fields(Settings)}


# What any setting of tokens needs beside it.
TOKENS = {"JWT_JWKS": "https://id.example/jwks", "JWT_ISSUER": "https://id.example/", "JWT_AUDIENCE": "wine"}


def read(**environ: str) -> Settings:
    return Settings.from_environ(environ)


def test_an_empty_environment_gives_the_defaults():
    assert read() == DEFAULTS


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("API_TITLE", "Wines", "api_title", "Wines"),
        ("API_VERSION", "2.1", "api_version", "2.1"),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LOG_FORMAT", "Console", "log_format", "console"),
        ("LOG_PREDICTIONS", "OFF", "log_predictions", 0.0),
        ("LOG_PREDICTIONS", "0.01", "log_predictions", 0.01),
        ("LOG_FEATURES", "yes", "log_features", True),
        ("TRACES", "on", "traces", True),
        ("AWS_PROFILE", "wines", "aws_profile", "wines"),
        ("AWS_DEFAULT_REGION", "eu-central-1", "aws_default_region", "eu-central-1"),
        ("S3_BUCKET_NAME", "wines", "s3_bucket_name", "wines"),
        ("MODEL_DIR", "/models", "model_dir", Path("/models")),
        ("MODEL_KEY", "models/2.0/wine.joblib", "model_key", "models/2.0/wine.joblib"),
        ("MODEL_CACHE_TTL", "0", "model_cache_ttl", 0.0),
        ("MODEL_CACHE_TTL", "1.5", "model_cache_ttl", 1.5),
        ("MODEL_LOAD_TIMEOUT", "5", "model_load_timeout", 5.0),
        ("MODEL_MAX_BYTES", "1000", "model_max_bytes", 1000),
        ("MODEL_ALLOWED_TYPES", "a.B, c.D,", "model_allowed_types", ("a.B", "c.D")),
        ("MODEL_PUBLIC_KEYS", "a,b", "model_public_keys", "a,b"),
        ("MODEL_CACHE_DIR", "/cache", "model_cache_dir", Path("/cache")),
        ("STATE_DIR", "/state", "state_dir", Path("/state")),
        ("MAX_BODY_BYTES", "1", "max_body_bytes", 1),
        ("MAX_BATCH_ROWS", "20000", "max_batch_rows", 20_000),
        ("MAX_IN_FLIGHT", "7", "max_in_flight", 7),
        ("REQUEST_DEADLINE", "1.5", "request_deadline", 1.5),
        ("API_KEYS_FILE", "/keys.json", "api_keys_file", Path("/keys.json")),
        ("JWT_JWKS", "/etc/jwks.json", "jwt_jwks", "/etc/jwks.json"),
        ("JWT_ISSUER", "https://id.example/", "jwt_issuer", "https://id.example/"),
        ("JWT_AUDIENCE", "wine", "jwt_audience", "wine"),
        ("JWT_ALGORITHMS", "ES256, EdDSA", "jwt_algorithms", ("ES256", "EdDSA")),
        ("JWT_SCOPE_CLAIM", "roles", "jwt_scope_claim", "roles"),
        ("JWT_SCOPES", "a=predict, b=model:write", "jwt_scopes", ("('a', 'predict')", "('b', 'model:write')")),
        ("RATE_LIMIT", "60/minute", "rate_limit", Rate(60, 60)),
        ("RATE_LIMIT_ROWS", "5/day", "rate_limit_rows", Rate(5, 86_400)),
        ("RATE_LIMIT_STORAGE", "rediss://redis:6379/1", "rate_limit_storage", "rediss://redis:6379/1"),
        ("CORS_ORIGINS", "https://A.example,http://b:81", "cors_origins", ("https://a.example", "http://b:81")),
        ("WEB_RELOAD", "Yes", "web_reload", True),
        ("WEB_RELOAD", "off", "web_reload", False),
        ("HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("PORT", "65535", "port", 65_535),
        ("WEB_CONCURRENCY", "8", "web_concurrency", 8),
        ("WEB_THREADS", "1", "web_threads", 1),
        ("DRAIN_SECONDS", "2.5", "drain_seconds", 2.5),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", "trusted_proxies", ("10.0.0.0/8", "::1/128")),
    ],
)
def test_every_variable_is_parsed(variable, text, name, value):
    others = TOKENS if variable.startswith("JWT_") else {}

    parsed = getattr(read(**{**others, variable: text}), name)

    assert as_written(parsed) == value


def as_written(value):
    """Networks are easier to compare as text."""
    if isinstance(value, tuple):
        return tuple(map(str, value))
    return value


def test_the_keys_of_an_identity_provider_need_its_name_and_ours():
    assert read(**TOKENS).jwt_jwks == "https://id.example/jwks"
    for missing in ({"JWT_ISSUER": "a"}, {"JWT_AUDIENCE": "a"}, {}):
        with pytest.raises(InvalidSetting, match="JWT_JWKS needs JWT_ISSUER and JWT_AUDIENCE"):
            read(JWT_JWKS="https://id.example/jwks", **missing)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("JWT_ISSUER", "https://id.example/"),
        ("JWT_AUDIENCE", "wine"),
        ("JWT_ALGORITHMS", "RS256"),
        ("JWT_SCOPE_CLAIM", "roles"),
        ("JWT_SCOPES", "a=predict"),
    ],
)
@pytest.mark.parametrize("others", [{}, {"API_KEYS_FILE": "/keys.json"}], ids=["alone", "with API keys"])
def test_who_sets_tokens_up_without_their_keys_is_told_so_and_not_served_openly(variable, text, others):
    with pytest.raises(InvalidSetting, match=f"{variable} must be set together with JWT_JWKS"):
        read(JWT_JKWS="https://id.example/jwks", **{variable: text}, **others)


def test_the_cases_above_leave_no_variable_out():
    marks = test_every_variable_is_parsed.pytestmark[0].args[1]

    assert {(variable, name) for variable, _, name, _ in marks} == {(VARIABLES[name], name) for name in VARIABLES}


@pytest.mark.parametrize("text", ["", " ", "\t\n"], ids=["empty", "space", "white space"])
@pytest.mark.parametrize("variable", VARIABLES.values())
def test_an_empty_variable_is_unset(variable, text):
    assert read(**{variable: text}) == DEFAULTS


def test_white_space_around_a_value_does_not_count():
    assert read(PORT=" 9000\n").port == 9000


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("LOG_FORMAT", "xml", "json or console"),
        ("LOG_PREDICTIONS", "1.5", "all, off, or a share from 0 to 1"),
        ("LOG_PREDICTIONS", "some", "all, off, or a share from 0 to 1"),
        ("LOG_PREDICTIONS", "nan", "all, off, or a share from 0 to 1"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("MODEL_KEY", "/models/wine.joblib", "a key such as"),
        ("MODEL_KEY", "models/../../wine.joblib", "a key such as"),
        ("MODEL_KEY", "models/", "a key such as"),
        ("MODEL_CACHE_TTL", "-1", "a number of seconds, at least 0"),
        ("MODEL_CACHE_TTL", "an hour", "a number of seconds, at least 0"),
        ("MODEL_CACHE_TTL", "nan", "a number of seconds, at least 0"),
        ("MODEL_CACHE_TTL", "inf", "a number of seconds, at least 0"),
        ("MODEL_LOAD_TIMEOUT", "0.5", "a number of seconds, at least 1"),
        ("MODEL_MAX_BYTES", "0", "a whole number from 1"),
        ("MAX_BODY_BYTES", "4 MiB", "a whole number from 1"),
        ("MAX_BATCH_ROWS", "1.5", "a whole number from 1"),
        ("MAX_BATCH_ROWS", "-3", "a whole number from 1"),
        ("WEB_RELOAD", "maybe", "yes or no"),
        ("PORT", "http", "a whole number from 1 to 65535"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "65536", "a whole number from 1 to 65535"),
        ("WEB_CONCURRENCY", "0", "a whole number from 1"),
        ("WEB_THREADS", "many", "a whole number from 1"),
        ("MAX_IN_FLIGHT", "0", "a whole number from 1"),
        ("REQUEST_DEADLINE", "-1", "a number of seconds, at least 0"),
        *(("RATE_LIMIT", text, "a number per second") for text in ("60", "0/minute", "-1/day", "1/week", "1 / day")),
        ("RATE_LIMIT_ROWS", "٣/minute", "a number per second"),
        *(("RATE_LIMIT_STORAGE", text, "a URL like redis://") for text in ("memory://", "redis:", "host:6379")),
        *(("JWT_ALGORITHMS", text, "some of") for text in ("HS256", "none", "RS256,none", ",")),
        ("JWT_SCOPES", "predict", "pairs like"),
        *(
            ("CORS_ORIGINS", text, "exact origins")
            for text in ("*", "null", "https://*.example/", "https://a.example/path", "a.example", "ftp://a.example")
        ),
        ("TRUSTED_PROXIES", "everyone", "IP addresses or networks"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "IP addresses or networks"),
    ],
)
def test_a_bad_value_is_refused_and_the_variable_named(variable, text, expected):
    with pytest.raises(InvalidSetting) as refusal:
        read(**{variable: text})

    assert str(refusal.value).startswith(f"{variable} must be {expected}")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "s3cret"),
        *(
            ("RATE_LIMIT_STORAGE", text)
            for text in (
                "redis://default:s3cret/rest@127.0.0.1:6379/0",
                "redis://default:1/s3cret@127.0.0.1:6379/0",
                "redis://default:1?s3cret@127.0.0.1:6379/0",
                "redis://default:1#s3cret@127.0.0.1:6379/0",
                "redis://default:s3cret[x]@127.0.0.1:6379/0",
                "redis://default:s3cret\u2100@127.0.0.1/0",
                "redis://127.0.0.1:s3cret/0",
                "redis://127.0.0.1/s3cret",
                "redis://:s3cret@[::1/0",
            )
        ),
        *(
            ("JWT_JWKS", text)
            for text in (
                "https://[::1/jwks?token=s3cret",
                "https://127.0.0.1:1/jw ks?token=s3cret",
                "https://id.example/jwks?token=s3crét",
                "https://id.example:s3cret/jwks",
                "https://user:s3cret@id.example/jwks",
                "https://?token=s3cret",
            )
        ),
        *(
            ("CORS_ORIGINS", text)
            for text in (
                "https://[::1",
                "https://user:s3cret@shop.example",
                "https://shop.example:s3cret",
                "https://s3cret\u2100@shop.example",
            )
        ),
    ],
)
def test_a_bad_value_is_not_repeated(variable, text):
    with pytest.raises(InvalidSetting) as refusal:
        read(**{variable: text})

    assert str(refusal.value).startswith(f"{variable} must be ")
    assert not any(part in str(refusal.value) for part in ("s3cr", "[::1", "\u2100"))


def test_all_bad_values_are_named_at_once():
    with pytest.raises(InvalidSetting, match=r"LOG_LEVEL must be .*; PORT must be"):
        read(PORT="x", LOG_LEVEL="x")


def test_only_loopback_is_trusted_by_default():
    assert DEFAULTS.trusted_proxies == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def test_nobody_is_trusted_if_the_list_is_empty():
    assert read(TRUSTED_PROXIES=",").trusted_proxies == ()


def test_there_is_no_default_bucket():
    assert DEFAULTS.s3_bucket_name is None


def test_the_version_is_the_packages_own():
    assert DEFAULTS.api_version == __version__


def test_folders_differ_by_port_unless_they_are_set():
    assert read(PORT="1").state_folder != read(PORT="2").state_folder
    assert read(PORT="1").model_cache_folder != read(PORT="2").model_cache_folder
    assert read(STATE_DIR="/state").state_folder == Path("/state")
    assert read(MODEL_CACHE_DIR="/cache").model_cache_folder == Path("/cache")


def test_folders_need_no_home(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)

    assert str(os.getuid()) in DEFAULTS.state_folder.parts[-1]


def test_every_setting_is_in_the_reference_with_its_sentence():
    reference = settings_reference()

    rows = [line for line in reference.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [*VARIABLES.values()]
    assert all(row.rstrip("| ").endswith((".", ")")) for row in rows)
    assert "None" not in reference


def test_reading_settings_imports_neither_flask_nor_numpy():
    code = "import sys, wine_api.config; sys.exit(bool({'flask', 'numpy', 'sklearn'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
