"""Whose word counts: X-Forwarded-* is believed from trusted proxies, and from nobody else."""

from __future__ import annotations

import ipaddress

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from wine_api.security.proxies import TrustedProxies

FORWARDED = {
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "wines.example",
    "X-Forwarded-Prefix": "/ml/v1",
}


def seen(peer: str, headers: dict[str, str], networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128", "10.0.0.0/8")):
    """Return what the application sees of a request that *peer* sent."""
    found = {}

    def application(environ, start_response):
        found.update(environ)
        start_response("200 OK", [])
        return [b""]

    environ = EnvironBuilder(path="/model", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).get_environ()
    run_wsgi_app(TrustedProxies(application, [*map(ipaddress.ip_network, networks)]), environ)
    return found


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "10.1.2.3", ""], ids=str)
def test_a_trusted_proxy_is_believed(peer):
    environ = seen(peer, FORWARDED)

    assert environ["REMOTE_ADDR"] == "198.51.100.7"
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["HTTP_HOST"] == "wines.example"
    assert environ["SCRIPT_NAME"] == "/ml/v1"


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "11.0.0.1", "nonsense"])
def test_nobody_else_is_believed(peer):
    environ = seen(peer, FORWARDED)

    assert environ["REMOTE_ADDR"] == peer
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["HTTP_HOST"] == "localhost"
    assert environ["SCRIPT_NAME"] == ""


@pytest.mark.parametrize("peer", ["192.0.2.1", "nonsense"])
def test_what_nobody_said_is_not_passed_on(peer):
    environ = seen(peer, FORWARDED)

    assert not [name for name in environ if name.startswith("HTTP_X_FORWARDED")]


def test_nobody_is_trusted_without_networks():
    assert seen("127.0.0.1", FORWARDED, networks=())["REMOTE_ADDR"] == "127.0.0.1"


def test_only_the_last_proxy_is_believed():
    environ = seen("127.0.0.1", {"X-Forwarded-For": "6.6.6.6, 198.51.100.7"})

    assert environ["REMOTE_ADDR"] == "198.51.100.7"


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "/a//b",
        "https://evil.example",
        "/a?b",
        "/a b",
        "/<script>",
        "evil",
        "/a\\b",
        "/a%2f",
        "/../..",
        "/",
    ],
)
def test_a_prefix_that_could_lead_elsewhere_is_ignored(prefix):
    assert seen("127.0.0.1", {"X-Forwarded-Prefix": prefix})["SCRIPT_NAME"] in ("", "/")


@pytest.mark.parametrize("prefix", ["/ml", "/ml/v1", "/ml/v1/", "/a-b_c.d~e"])
def test_a_plain_prefix_is_taken(prefix):
    assert seen("127.0.0.1", {"X-Forwarded-Prefix": prefix})["SCRIPT_NAME"].rstrip("/") == prefix.rstrip("/")


def test_a_request_without_proxies_is_left_alone():
    environ = seen("192.0.2.1", {"X-Request-ID": "a"})

    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["HTTP_X_REQUEST_ID"] == "a"
