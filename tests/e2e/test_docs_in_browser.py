"""The documentation as a browser shows it, at the root and behind the prefix of a proxy."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.e2e.prefix_proxy import prefix_proxy
from tests.server import Caller, running_server

pytestmark = pytest.mark.browser

ENDPOINTS = {
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("POST", "/predict"),
    ("POST", "/predict/batch"),
    ("GET", "/model"),
    ("GET", "/model/versions"),
    ("POST", "/model/reload"),
    ("POST", "/model/rollback"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_path():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None or not os.access(path, os.X_OK):
        # A newcomer has Python and make only. `.ci/run` installs Chromium and lets no test be skipped.
        pytest.skip("The browser tests need Chromium: apt-get install chromium, or set CHROMIUM to its path.")
    return path


@pytest.fixture(scope="module")
def browser():
    path = chromium_path()
    expect.set_options(timeout=30_000)  # the machine may be busy with everything else
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service_url(tmp_path_factory, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "API_TITLE": "Cellar & <b>Co</b>"}
    with running_server(tmp_path_factory.mktemp("docs"), settings) as server:
        yield server.url


@pytest.fixture(scope="module", params=["at the root", "behind a prefix"])
def base(request, service_url):
    """The address of the service, without a slash at its end."""
    if request.param == "at the root":
        yield service_url
        return
    with prefix_proxy(service_url) as url:
        yield url


class Visit:
    """A page, and all that the browser fetched and complained of on the way."""

    def __init__(self, page):
        self.page = page
        self.complaints = []
        self.requests = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url} {request.failure}"))

    def _note(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def foreign_requests(self, base):
        """Return the requests that did not go to the service at *base*, prefix included."""
        local = (f"{base}/", "data:", "blob:http://127.0.0.1:")
        return [url for url in self.requests if not url.startswith(local)]


@pytest.fixture
def visit(browser, base):
    """Opens pages of the service; whatever they do, they must neither complain nor call anyone else."""

    @contextmanager
    def open_page(path):
        with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
            visit = Visit(context.new_page())
            visit.page.goto(base + path, wait_until="networkidle")
            yield visit
            assert visit.complaints == []
            assert visit.foreign_requests(base) == []

    return open_page


def operations(base):
    """Return the operations of the document, as method, path and id."""
    paths = Caller(base).get("/openapi.json").json["paths"]
    return [
        (method.upper(), path, operation["operationId"])
        for path, item in paths.items()
        for method, operation in item.items()
    ]


# Swagger UI


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_swagger_ui_lists_every_endpoint(visit, base, path):
    with visit(path) as visited:
        rows = visited.page.locator(".opblock-summary")
        expect(rows).to_have_count(len(operations(base)))
        listed = {
            (row.locator(".opblock-summary-method").inner_text(), row.locator("[data-path]").get_attribute("data-path"))
            for row in rows.all()
        }

    assert listed == {(method, path) for method, path, _ in operations(base)}
    assert listed >= ENDPOINTS


@pytest.mark.parametrize("operation", ["predict", "predict_batch"])
def test_try_it_out_answers_at_the_first_click(visit, operation):
    with visit("/docs") as visited:
        page = visited.page.locator(f"#operations-predictions-{operation}")
        page.locator(".opblock-summary").click()
        page.locator("button.execute").click()

        expect(page.locator(".live-responses-table .response .response-col_status")).to_have_text("200")
        answer = json.loads(page.locator(".live-responses-table .response pre.microlight").first.inner_text())

    assert answer["features_processed"] == 11


def test_try_it_out_sends_the_example_that_is_chosen(visit):
    with visit("/docs") as visited:
        page = visited.page.locator("#operations-predictions-predict")
        page.locator(".opblock-summary").click()
        page.locator(".opblock-section-request-body .examples-select-element").select_option("wine_by_name")
        page.locator("button.execute").click()

        expect(page.locator(".live-responses-table .response .response-col_status")).to_have_text("200")
        expect(page.locator(".curl-command")).to_contain_text("wine_features")


def test_swagger_ui_shows_the_schemas(visit):
    with visit("/docs") as visited:
        visited.page.locator("section.models button.models-control").click()

        expect(visited.page.locator("section.models")).to_contain_text("WineFeatures")
        expect(visited.page.locator("section.models")).to_contain_text("WineNumbers")


def test_swagger_ui_shows_a_command_for_this_very_address(visit, base):
    with visit("/docs") as visited:
        expect(visited.page.locator(".info .description")).to_contain_text(f"curl {base}/predict ")


# ReDoc


@pytest.mark.parametrize("path", ["/redoc", "/redoc/"])
def test_redoc_shows_every_endpoint(visit, base, path):
    with visit(path) as visited:
        for _, path, operation in operations(base):
            section = visited.page.locator(f'[data-section-id$="/operation/{operation}"]')
            expect(section).to_contain_text(path)


def test_redoc_finds_what_is_searched_for(visit):
    with visit("/redoc") as visited:
        visited.page.get_by_role("search").get_by_role("textbox").fill("batch")

        expect(visited.page.get_by_role("search")).to_contain_text("Say how good many wines are")


# Both


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_title_is_shown_as_text(visit, path):
    with visit(path) as visited:
        expect(visited.page).to_have_title("Cellar & <b>Co</b>")
        expect(visited.page.locator("h1, h2.title").first).to_contain_text("Cellar & <b>Co</b>")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_other_document_can_be_slipped_in(visit, base, path):
    query = "&".join(f"{name}={base}/model" for name in ("url", "urls", "configUrl", "spec", "spec-url", "specUrl"))

    with visit(f"{path}?{query}") as visited:
        expect(visited.page.get_by_text("/predict/batch").first).to_be_attached()

    assert f"{base}/model" not in visited.requests
    assert f"{base}/openapi.json" in visited.requests
