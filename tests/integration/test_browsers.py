"""What web pages of other origins may do, and what browsers are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.models import WINE
from wine_api.security import keys
from wine_api.security.access import Scope

SHOP = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}


@pytest.fixture
def open_to_shop(run, settings, folder, models, tmp_path):
    """Calls a service that wants keys, and that pages of the shop may call."""
    folder.upload(models.fives_and_sixes.content)
    keys.create_key(tmp_path / "keys.json", "shop", [Scope.PREDICT], None)
    return run(
        replace(settings, cors_origins=(SHOP, "http://localhost:3000"), api_keys_file=tmp_path / "keys.json")
    ).test_client()


def cors_headers(answer):
    return {name for name in answer.headers.keys() if name.startswith("Access-Control-")}  # noqa: SIM118


@pytest.mark.parametrize("path", ["/predict", "/model/reload", "/health"])
def test_a_listed_origin_may_ask_without_a_key_what_it_may_send(open_to_shop, path):
    answer = open_to_shop.options(path, headers={"Origin": SHOP, **PREFLIGHT})

    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert {"X-API-Key", "Authorization", "Content-Type"} <= set(
        answer.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert "Origin" in answer.headers["Vary"]


def test_a_listed_origin_reads_answers_and_refusals(open_to_shop):
    answer = open_to_shop.post("/predict", json={"features": WINE}, headers={"Origin": SHOP})

    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://shop.example",
        "https://shop.example:8443",
        "https://shop.example.evil.example",
        "https://evilshop.example",
        "https://shop.example/",
        "https://SHOP.example",
        "*",
        "",
    ],
)
def test_any_other_origin_gets_nothing(open_to_shop, origin):
    preflight = open_to_shop.options("/predict", headers={"Origin": origin, **PREFLIGHT})
    answer = open_to_shop.get("/health", headers={"Origin": origin})

    assert preflight.status_code == 401
    assert cors_headers(preflight) == cors_headers(answer) == set()
    assert "Origin" in answer.headers["Vary"]


def test_no_cache_hands_an_answer_of_another_origin_on(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    client = run(replace(settings, cors_origins=(SHOP,))).test_client()

    answers = [client.post("/predict", json={"features": WINE}, headers=sent) for sent in ({}, {"Origin": SHOP})]

    assert [(answer.status_code, answer.headers.getlist("Vary")) for answer in answers] == [(200, ["Origin"])] * 2


def test_no_origin_is_let_in_unless_it_is_listed(client):
    answer = client.get("/health", headers={"Origin": SHOP})

    assert cors_headers(answer) == set()
    assert "Vary" not in answer.headers


def test_behind_tls_browsers_are_told_to_stay_there(client):
    behind_tls = client.get("/", headers={"X-Forwarded-Proto": "https"})
    spoofed = client.get("/", headers={"X-Forwarded-Proto": "https"}, environ_overrides={"REMOTE_ADDR": "192.0.2.7"})

    assert behind_tls.headers["Strict-Transport-Security"].startswith("max-age=")
    assert "Strict-Transport-Security" not in spoofed.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/", "/nowhere", "/health", "/metrics"])
def test_every_answer_has_one_policy_and_cannot_be_framed(client, path):
    policies = client.get(path).headers.getlist("Content-Security-Policy")

    assert len(policies) == 1
    assert "frame-ancestors 'none'" in policies[0]
