"""The pages of the documentation, as they are sent. What a browser makes of them is in tests/e2e."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from importlib.resources import files

import pytest

REDOC = files("wine_api") / "static" / "vendor" / "redoc"


def policy_of(response):
    """Return the sources that the policy of *response* allows, by directive."""
    directives = (directive.split() for directive in response.headers["Content-Security-Policy"].split(";"))
    return {name: set(sources) for name, *sources in directives}


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/redoc", "/redoc/"])
def test_pages_are_right_where_they_are_said_to_be(client, path):
    response = client.get(path)

    assert response.status_code == 200
    assert response.mimetype == "text/html"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_allow_no_script_but_ours_and_no_other_host(client, path):
    policy = policy_of(client.get(path))

    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == policy["connect-src"] == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == {"'none'"}
    assert set.union(*policy.values()) <= {"'self'", "'none'", "data:", "blob:", "'unsafe-inline'"}


def test_only_redoc_may_write_styles_and_start_a_worker(client):
    strict, loose = policy_of(client.get("/docs")), policy_of(client.get("/redoc"))

    assert strict["style-src"] == {"'self'"}
    assert "worker-src" not in strict
    assert loose["style-src"] == {"'self'", "'unsafe-inline'"}
    assert loose["worker-src"] == {"blob:"}


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_name_no_other_host_and_hold_no_script(client, path):
    page = client.get(path).text

    assert "//" not in page
    assert re.findall(r"<script(?! src=)|<style| style=| on[a-z]+=", page) == []


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_link_to_what_is_there(client, path):
    links = re.findall(r'(?:href|src|data-url)="([^"]+)"', client.get(path).text)

    assert len(links) >= 4
    assert [link for link in links if client.get(link).status_code != 200] == []


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_keep_the_prefix_of_a_trusted_proxy(client, path):
    page = client.get(path, headers={"X-Forwarded-Prefix": "/wine"}).text

    assert all(link.startswith("/wine/") for link in re.findall(r'(?:href|src|data-url)="([^"]+)"', page))


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_escape_the_title(run, settings, path):
    app = run(replace(settings, api_title="<script>alert(1)</script>"))

    page = app.test_client().get(path).text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    "query", ["url=//evil.example/spec.json", "configUrl=//evil.example", "spec-url=//evil.example"]
)
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_do_not_depend_on_the_query(client, path, query):
    assert client.get(f"{path}?{query}").text == client.get(path).text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_pages_and_document_are_asked_for_again_each_time(client, path):
    assert client.get(path).headers["Cache-Control"] == "no-cache"


def test_browsers_keep_a_file_that_is_named_by_its_content(client):
    script = re.search(r'src="([^"]+bundle[^"]+)"', client.get("/docs").text).group(1)

    with client.get(script) as response:
        assert response.mimetype == "text/javascript"
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    with client.get(script.replace("?v=", "?v=0")) as response:
        assert response.headers["Cache-Control"] == "no-cache"


def test_a_file_that_has_not_changed_is_not_sent_again(client):
    with client.get("/docs/assets/docs.css") as first:
        etag = first.headers["ETag"]

    assert client.get("/docs/assets/docs.css", headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/docs/assets/",
        "/docs/assets/index.html",
        "/docs/assets/swagger-ui.js",
        "/docs/assets/vendor/redoc/VERSION",
        "/docs/assets/../config.py",
        "/docs/assets/%2e%2e%2fconfig.py",
        "/docs/assets/..%5cconfig.py",
        "/static/docs.css",
        # flasgger's own
        "/apidocs/",
        "/apidocs/index.html",
        "/oauth2-redirect.html",
        "/flasgger_static/swagger-ui.css",
    ],
)
def test_no_other_file_can_be_had(client, path):
    response = client.get(path)

    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


def test_the_start_page_links_to_them(client):
    links = client.get("/").json["links"]

    assert {name: links[name] for name in ("docs", "redoc", "openapi")} == {
        "docs": "/docs",
        "redoc": "/redoc",
        "openapi": "/openapi.json",
    }


def test_redoc_is_the_file_that_its_version_note_names():
    bundle = (REDOC / "redoc.standalone.js").read_bytes()
    digest = hashlib.sha256(bundle).hexdigest()

    assert f"sha256 {digest} redoc.standalone.js as served" in (REDOC / "VERSION").read_text()
    assert b"cdn.redoc.ly" not in bundle
