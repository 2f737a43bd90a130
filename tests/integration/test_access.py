"""Who may call what: every route with every credential, with API keys, with none, and from where."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.problems import problem_of
from tests.models import WINE
from tests.service import running_app
from wine_api.api import ROUTES
from wine_api.config import Settings
from wine_api.security import keys
from wine_api.security.access import Access, Scope
from wine_api.security.guard import guard_of

PREDICT = ("POST", "/predict", {"features": WINE})
ROUTES_BY_SCOPE = {
    Scope.PREDICT: [PREDICT, ("POST", "/predict/batch", {"features_list": [WINE]})],
    Scope.MODEL_READ: [("GET", "/model", None), ("GET", "/model/versions", None)],
    Scope.MODEL_WRITE: [("POST", "/model/reload", {}), ("POST", "/model/rollback", None)],
    Scope.METRICS: [("GET", "/metrics", None)],
    None: [
        ("GET", path, None)
        for path in ("/", "/health", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json")
    ],
}
EVERY_ROUTE = [(scope, *route) for scope, routes in ROUTES_BY_SCOPE.items() for route in routes]
GUARDED = [route for route in EVERY_ROUTE if route[0] is not None]
BY_PATH = {"ids": lambda value: value if isinstance(value, str) else ""}


@pytest.fixture(scope="module")
def key_of():
    """What each key of the file is, by its name."""
    return {}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory, key_of):
    """A file with a key for each scope, one for all, one that has expired and one that was revoked."""
    path = tmp_path_factory.mktemp("keys") / "api-keys.json"
    for scope in Scope:
        key_of[scope] = keys.create_key(path, f"only {scope}", [scope], None)
    key_of["all"] = keys.create_key(path, "all", [*Scope], datetime.now(UTC) + timedelta(days=1))
    key_of["expired"] = keys.create_key(path, "expired", [*Scope], datetime.now(UTC) - timedelta(seconds=1))
    key_of["revoked"] = keys.create_key(path, "revoked", [*Scope], None)
    keys.revoke_key(path, "revoked")
    return path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, key_file, published_models):
    """Calls a service that wants keys."""
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        model_cache_dir=tmp_path_factory.mktemp("cache"),
        model_dir=published_models.path,
        api_keys_file=key_file,
    )
    with running_app(settings) as app:
        yield app.test_client()


def ask(client, method, path, body, headers=None):
    return client.open(path, method=method, json=body, headers=headers or {})


def is_let_through(answer):
    """Whether the view answered, whatever it said."""
    return answer.status_code not in (401, 403, 404) or answer.json.get("code") == "no_previous_model"


def test_the_table_below_has_every_route():
    views = sum(len(views) for views in ROUTES.values())

    assert len(EVERY_ROUTE) == views - 1  # all but the files of the documentation pages


@pytest.mark.parametrize("scheme", ["X-API-Key", "Bearer"])
@pytest.mark.parametrize("held", [*Scope, "all"])
@pytest.mark.parametrize(("needed", "method", "path", "body"), EVERY_ROUTE, **BY_PATH)
def test_a_key_opens_the_routes_of_its_scopes_and_no_other(guarded, key_of, needed, method, path, body, held, scheme):
    key = key_of[held]
    headers = {"X-API-Key": key} if scheme == "X-API-Key" else {"Authorization": f"Bearer {key}"}

    answer = ask(guarded, method, path, body, headers)

    if needed is None or held in ("all", needed):
        assert is_let_through(answer)
    else:
        assert answer.status_code == 403
        problem = problem_of(answer)
        assert (problem["code"], problem["scope"]) == ("not_allowed", needed)
        assert answer.headers["WWW-Authenticate"].endswith(f'error="insufficient_scope", scope="{needed}"')


BAD_CREDENTIALS = {
    "nothing": {},
    "an empty key": {"X-API-Key": ""},
    "an unknown key": {"X-API-Key": keys.new_key()},
    "an unknown bearer": {"Authorization": f"Bearer {keys.new_key()}"},
    "bearer without a key": {"Authorization": "Bearer "},
    "a word": {"Authorization": "secret"},
    "a password": {"Authorization": "Basic " + base64.b64encode(b"admin:admin").decode()},
    "not ASCII": {"X-API-Key": "wine_é"},
    "not ASCII, bearer": {"Authorization": "Bearer wine_\xff\xfe"},
    "a long key": {"X-API-Key": "wine_" + "a" * 100_000},
    "NUL": {"X-API-Key": "wine_\x00"},
    "a token without a signature": {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzY29wZSI6Im1vZGVsOndyaXRlIn0."},
}


@pytest.mark.parametrize("credentials", BAD_CREDENTIALS.values(), ids=BAD_CREDENTIALS)
@pytest.mark.parametrize(("needed", "method", "path", "body"), GUARDED, **BY_PATH)
def test_without_a_valid_key_nothing_opens(guarded, needed, method, path, body, credentials):
    answer = ask(guarded, method, path, body, credentials)

    assert answer.status_code == 401
    assert problem_of(answer)["code"] == "not_authenticated"
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="wine-api"')


@pytest.mark.parametrize("gone", ["expired", "revoked"])
@pytest.mark.parametrize(("needed", "method", "path", "body"), GUARDED, **BY_PATH)
def test_a_key_that_has_ended_opens_nothing(guarded, key_of, needed, method, path, body, gone):
    answer = ask(guarded, method, path, body, {"X-API-Key": key_of[gone]})

    assert answer.status_code == 401


def test_the_digest_of_a_key_is_no_key(guarded, key_file):
    digest = json.loads(key_file.read_text())["keys"][0]["sha256"]

    assert ask(guarded, *PREDICT, {"X-API-Key": digest}).status_code == 401


def test_a_wrong_key_is_not_made_up_for_by_a_right_one(guarded, key_of):
    both = {"X-API-Key": "wrong", "Authorization": f"Bearer {key_of['all']}"}

    assert ask(guarded, *PREDICT, both).status_code == 401


def test_a_key_in_the_address_does_not_count(guarded, key_of):
    answer = ask(guarded, "POST", f"/predict?X-API-Key={key_of['all']}&api_key={key_of['all']}", {"features": WINE})

    assert answer.status_code == 401


def test_a_problem_does_not_repeat_the_key(guarded):
    assert "s3cret" not in ask(guarded, *PREDICT, {"X-API-Key": "wine_s3cret"}).text


@pytest.mark.parametrize("asked", ["0", "soon"], ids=["a deadline that is over", "a deadline that is none"])
@pytest.mark.parametrize(("held", "status"), [(None, 401), ("expired", 401), (Scope.METRICS, 403)], ids=str)
def test_who_may_not_predict_hears_that_and_nothing_of_deadlines(guarded, key_of, held, status, asked):
    credentials = {} if held is None else {"X-API-Key": key_of[held]}

    answer = ask(guarded, *PREDICT, {"X-Request-Deadline-Ms": asked, **credentials})

    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_does_not_look_at_credentials(guarded, path):
    assert guarded.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_other_methods_of_a_guarded_route_are_guarded_too(guarded, method):
    assert guarded.open("/model", method=method).status_code == 401


def test_says_in_the_document_which_scope_is_needed(guarded):
    document = guarded.get("/openapi.json").json

    assert document["paths"]["/model/reload"]["post"]["security"] == [
        {"ApiKey": ["model:write"]},
        {"Bearer": ["model:write"]},
    ]
    assert "security" not in document["paths"]["/health"]["get"]
    assert set(document["components"]["securitySchemes"]) == {"ApiKey", "Bearer"}


# Default deny


def test_a_route_that_nobody_opened_does_not_answer(app):
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")

    answer = app.test_client().get("/forgotten")

    assert answer.status_code == 404
    assert problem_of(answer)["code"] == "not_found"


def test_a_route_answers_once_it_is_opened(app):
    app.add_url_rule("/remembered", "remembered", lambda: "hello")
    guard_of(app).open({"remembered": Access()})

    assert app.test_client().get("/remembered").text == "hello"


# Without keys


@pytest.mark.parametrize(("needed", "method", "path", "body"), EVERY_ROUTE, **BY_PATH)
def test_without_keys_programs_on_this_host_may_do_everything(client, needed, method, path, body):
    assert is_let_through(ask(client, method, path, body))


@pytest.mark.parametrize(("needed", "method", "path", "body"), EVERY_ROUTE, **BY_PATH)
def test_without_keys_others_may_do_everything_but_change_the_model(client, needed, method, path, body):
    answer = client.open(path, method=method, json=body, environ_overrides={"REMOTE_ADDR": "192.0.2.7"})

    if needed is Scope.MODEL_WRITE:
        assert answer.status_code == 403
        assert problem_of(answer)["code"] == "not_allowed"
    else:
        assert is_let_through(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "198.51.100.7"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": "127.0.0.1, 127.0.0.1"},
        {"X-Forwarded-For": ""},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "wines.example"},
        {"X-Forwarded-Server": "proxy"},
        {"X-Forwarded-Ssl": "off"},
        {"X-Forwarded": "for=127.0.0.1"},
        {"X-Original-Forwarded-For": "127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "wines.example"},
        {"Host": "evil.example@127.0.0.1"},
        {"Host": "evil.example:80@localhost"},
        {"Host": "127.0.0.1#evil.example"},
        {"Host": "127.0.0.1/evil.example"},
        {"Host": "127.0.0.1?x"},
        {"Host": "127.0.0.1:port"},
        {"Host": "localhost."},
        {"Host": "[::1"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://evil@localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=lambda headers: " ".join(f"{name} {value}" for name, value in headers.items()),
)
def test_what_comes_through_a_proxy_or_a_web_page_is_not_from_this_host(client, headers):
    answer = client.post("/model/reload", headers=headers)

    assert answer.status_code == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "api:8000"])
def test_a_program_on_this_host_may_reload(client, peer, host):
    answer = client.post("/model/reload", headers={"Host": host}, environ_overrides={"REMOTE_ADDR": peer})

    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
def test_the_documentation_on_this_host_may_reload(client, host):
    headers = {"Origin": f"http://{host}", "Host": host, "Sec-Fetch-Site": "same-origin"}

    assert client.post("/model/reload", headers=headers).status_code == 200


def test_a_forwarded_address_from_who_is_not_trusted_makes_nobody_local(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    client = run(replace(settings, trusted_proxies=())).test_client()

    for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": "10.0.0.1"}):
        for peer in ("192.0.2.7", "127.0.0.1"):
            answer = client.post("/model/reload", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
            assert answer.status_code == 403
