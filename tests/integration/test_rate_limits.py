"""Rate limits: exact over all workers, fair to others, and told in every answer."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.integration.problems import problem_of, read_problem
from tests.models import WINE
from tests.server import free_port, running_server, wait_until
from wine_api.config import Rate, Settings
from wine_api.security import keys
from wine_api.security.access import Scope

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")


@pytest.fixture
def limited(run, settings, folder, models):
    """Runs a service with limits of its own."""
    folder.upload(models.fives_and_sixes.content)
    return lambda **limits: run(replace(settings, **limits)).test_client()


def predict(client, rows=None, **options):
    if rows is None:
        return client.post("/predict", json={"features": WINE}, **options)
    return client.post("/predict/batch", json={"features_list": [WINE] * rows}, **options)


def from_address(address):
    return {"environ_overrides": {"REMOTE_ADDR": address}}


# In one process


def test_as_many_requests_as_allowed_are_answered_and_no_more(limited):
    client = limited(rate_limit=Rate(5, 3600))

    answers = [predict(client).status_code for _ in range(8)]

    assert answers == [200] * 5 + [429] * 3


def test_an_answer_says_how_the_caller_stands(limited):
    client = limited(rate_limit=Rate(5, 3600), rate_limit_rows=Rate(100, 3600))

    first, second = predict(client), predict(client, rows=30)

    assert first.headers["RateLimit-Policy"] == '"requests";q=5;w=3600, "rows";q=100;w=3600'
    assert re.fullmatch(r'"requests";r=4;t=3[56]\d\d, "rows";r=99;t=3[56]\d\d', first.headers["RateLimit"])
    assert second.headers["RateLimit"].startswith('"requests";r=3;')
    assert '"rows";r=69;' in second.headers["RateLimit"]


def test_a_refusal_says_what_of_and_when_to_come_back(limited):
    client = limited(rate_limit=Rate(1, 3600))
    predict(client)

    refused = predict(client)

    problem = problem_of(refused)
    assert (problem["code"], problem["limit"]) == ("rate_limited", "requests")
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')


def test_without_limits_nothing_is_said_of_them(client):
    headers = predict(client).headers

    assert "RateLimit" not in headers
    assert "RateLimit-Policy" not in headers


def test_a_batch_that_is_too_much_takes_nothing(limited):
    client = limited(rate_limit_rows=Rate(100, 3600))

    statuses = [predict(client, rows=rows).status_code for rows in (60, 60, 40, 1)]

    assert statuses == [200, 429, 200, 429]


def test_a_batch_larger_than_the_limit_is_refused_and_takes_nothing(limited):
    client = limited(rate_limit_rows=Rate(50, 3600))

    assert predict(client, rows=51).status_code == 429
    assert predict(client, rows=50).status_code == 200


def test_rows_of_an_invalid_request_are_not_counted(limited):
    client = limited(rate_limit_rows=Rate(2, 3600))
    for _ in range(3):
        assert client.post("/predict", json={"features": ["x"] * 11}).status_code == 422

    assert predict(client, rows=2).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_health_and_metrics_are_not_limited(limited, path):
    client = limited(rate_limit=Rate(1, 3600))
    predict(client)

    assert {client.get(path).status_code for _ in range(5)} == {200}
    assert "RateLimit" not in client.get(path).headers


def test_each_address_has_a_limit_of_its_own(limited):
    client = limited(rate_limit=Rate(1, 3600))

    for address in ("192.0.2.1", "192.0.2.2", "2001:db8:1::1", "2001:db8:2::1"):
        statuses = [predict(client, **from_address(address)).status_code for _ in range(2)]
        assert statuses == [200, 429]


def test_all_addresses_of_one_ipv6_network_count_together(limited):
    client = limited(rate_limit=Rate(1, 3600))
    predict(client, **from_address("2001:db8::1"))

    assert predict(client, **from_address("2001:db8::ffff:2")).status_code == 429


def test_clients_behind_a_trusted_proxy_are_told_apart(limited):
    client = limited(rate_limit=Rate(1, 3600))

    for address in ("198.51.100.1", "198.51.100.2"):
        assert predict(client, headers={"X-Forwarded-For": address}).status_code == 200


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("198.51.100.1", ("198.51.100.1:5555", "198.51.100.1:6666")),
        ("2001:db8::5", ("[2001:db8::5]:443", "[2001:db8::6]")),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_port_behind_a_forwarded_address_tells_nobody_apart(limited, address, others):
    client = limited(rate_limit=Rate(2, 3600))

    statuses = [predict(client, headers={"X-Forwarded-For": sent}).status_code for sent in (address, *others)]

    assert statuses == [200, 200, 429]
    assert predict(client, headers={"X-Forwarded-For": "203.0.113.9:5555"}).status_code == 200


def test_nobody_gets_around_a_limit_with_a_forwarded_address(limited):
    client = limited(rate_limit=Rate(1, 3600))
    statuses = [
        predict(client, headers={"X-Forwarded-For": f"198.51.100.{n}"}, **from_address("192.0.2.1")).status_code
        for n in range(3)
    ]

    assert statuses == [200, 429, 429]


def test_each_key_has_a_limit_of_its_own_wherever_it_is_used(limited, tmp_path):
    path = tmp_path / "keys.json"
    shop, cellar = (keys.create_key(path, name, [Scope.PREDICT], None) for name in ("shop", "cellar"))
    client = limited(rate_limit=Rate(2, 3600), api_keys_file=path)

    def status(key, address):
        return predict(client, headers={"X-API-Key": key}, **from_address(address)).status_code

    assert [status(shop, "192.0.2.1"), status(shop, "192.0.2.2"), status(shop, "192.0.2.3")] == [200, 200, 429]
    assert status(cellar, "192.0.2.1") == 200


def test_who_guesses_keys_is_limited(limited, tmp_path):
    path = tmp_path / "keys.json"
    key = keys.create_key(path, "shop", [Scope.PREDICT], None)
    client = limited(rate_limit=Rate(3, 3600), api_keys_file=path)

    guesses = [predict(client, headers={"X-API-Key": keys.new_key()}).status_code for _ in range(5)]

    assert guesses == [401, 401, 401, 429, 429]
    assert predict(client, headers={"X-API-Key": key}).status_code == 200


def test_whoever_may_not_do_what_they_ask_is_limited_too(limited, tmp_path):
    path = tmp_path / "keys.json"
    headers = {"X-API-Key": keys.create_key(path, "reader", [Scope.MODEL_READ], None)}
    client = limited(rate_limit=Rate(3, 3600), api_keys_file=path)

    refusals = [predict(client, headers=headers).status_code for _ in range(2)]
    refusals += [client.get("/metrics", headers=headers).status_code for _ in range(2)]

    assert refusals == [403, 403, 403, 429]
    assert client.get("/model", headers=headers).status_code == 429


def test_who_asks_from_elsewhere_for_what_only_this_host_may_do_is_limited(limited):
    client = limited(rate_limit=Rate(2, 3600))

    refusals = [client.post("/model/reload", **from_address("192.0.2.1")).status_code for _ in range(3)]

    assert refusals == [403, 403, 429]
    assert client.post("/model/reload", **from_address("192.0.2.2")).status_code == 403


@pytest.mark.parametrize("asked", ["0", "soon"], ids=["a deadline that is over", "a deadline that is none"])
def test_a_deadline_gets_nobody_around_a_limit(limited, tmp_path, asked):
    path = tmp_path / "keys.json"
    key = keys.create_key(path, "shop", [Scope.PREDICT], None)
    client = limited(rate_limit=Rate(1, 3600), api_keys_file=path)

    for credentials in ({}, {"X-API-Key": key}):
        headers = {"X-Request-Deadline-Ms": asked, **credentials}
        assert predict(client, headers=headers).status_code in (401, 422, 503)
        assert predict(client, headers=headers).status_code == 429


def test_a_key_whose_name_is_half_a_character_is_counted_like_any_other(limited, tmp_path):
    path = tmp_path / "keys.json"
    key = keys.create_key(path, "shop", [Scope.PREDICT], None)
    path.write_text(path.read_text().replace("shop", r"\ud800"))
    client = limited(rate_limit=Rate(1, 3600), api_keys_file=path)

    assert [predict(client, headers={"X-API-Key": key}).status_code for _ in range(2)] == [200, 429]


def test_requests_are_answered_where_nothing_can_be_counted(limited, tmp_path):
    client = limited(rate_limit=Rate(1, 3600))
    shutil.rmtree(tmp_path / "state")

    assert [predict(client).status_code for _ in range(3)] == [200] * 3


# Over all workers


def hammer(urls, requests, path="/predict", body=None):
    """Send *requests* from many clients at once, and return how often each status came; "broken" is no answer."""
    content = json.dumps(body or {"features": WINE}).encode()

    def send(number):
        host = urls[number % len(urls)].removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=45)
        try:
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return "broken"
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(send, range(requests)))


def test_sixty_of_four_workers_are_sixty(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "4", "RATE_LIMIT": "60/hour"}

    with running_server(tmp_path, settings) as server:
        statuses = hammer([server.url], 300)

    assert statuses == {200: 60, 429: 240}


def test_rows_of_batches_are_exact_over_four_workers(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "4", "RATE_LIMIT_ROWS": "700/hour"}

    with running_server(tmp_path, settings) as server:
        statuses = hammer([server.url], 150, "/predict/batch", {"features_list": [WINE] * 10})

    assert statuses == {200: 70, 429: 80}


def test_no_more_than_sixty_while_workers_are_killed(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "WEB_CONCURRENCY": "4", "RATE_LIMIT": "60/hour"}

    with running_server(tmp_path, settings) as server, ThreadPoolExecutor(1) as other:
        hammering = other.submit(hammer, [server.url], 300)
        for pid in sorted(server.worker_pids())[:2]:
            os.kill(pid, signal.SIGKILL)
        statuses = hammering.result() + hammer([server.url], 100)

    # A request that was counted and whose worker was killed before it answered is among the broken ones.
    assert 60 - statuses["broken"] <= statuses[200] <= 60
    assert statuses[429] >= 300


# Over several hosts


@contextmanager
def running_redis(folder, port):
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: pings(port), "redis-server")
        yield
    finally:
        process.kill()
        process.wait()


def pings(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@pytest.fixture
def redis_port():
    return free_port()


@pytest.fixture
def two_hosts(tmp_path, published_models, redis_port):
    """Runs two separate services that count in one Redis, or in none while it is away."""
    settings = {
        "MODEL_DIR": str(published_models.path),
        "RATE_LIMIT": "60/hour",
        "RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{redis_port}/0",
    }
    with running_server(tmp_path / "a", settings) as a, running_server(tmp_path / "b", settings) as b:
        yield a, b


@needs_redis
def test_sixty_of_two_hosts_are_sixty_with_redis(two_hosts, redis_port, tmp_path):
    with running_redis(tmp_path, redis_port):
        statuses = hammer([server.url for server in two_hosts], 200)

    assert statuses == {200: 60, 429: 140}


@needs_redis
def test_requests_are_answered_and_counted_by_each_host_while_redis_is_away(two_hosts, redis_port, tmp_path):
    first, second = two_hosts

    statuses = hammer([first.url], 100)

    assert statuses == {200: 60, 429: 40}
    assert first.metric("wine_rate_limit_fallbacks_total") == 100
    first.wait_for_line("limits are counted by this host alone")
    assert second.metric("wine_rate_limit_fallbacks_total") == 0


@needs_redis
def test_a_host_goes_back_to_redis_by_itself(two_hosts, redis_port, tmp_path):
    first, _ = two_hosts
    hammer([first.url], 100)

    with running_redis(tmp_path, redis_port):
        wait_until(lambda: first.post("/predict", {"features": WINE}).status == 200, "Redis to count again")
        first.wait_for_line("limits are counted together again")


@pytest.mark.parametrize("option", ["retry", "event_dispatcher", "socket_type"])
def test_whatever_the_redis_client_raises_is_no_error_of_the_caller(limited, option):
    storage = f"redis://127.0.0.1:{free_port()}/0?{option}=none"
    client = limited(rate_limit=Rate(1, 3600), rate_limit_storage=storage)

    statuses = [predict(client).status_code for _ in range(2)]

    assert statuses == [200, 429]


def test_a_password_in_a_setting_is_not_shown():
    settings = Settings.from_environ({"RATE_LIMIT_STORAGE": "redis://:s3cret@host/0"})

    assert settings.rate_limit_storage == "redis://:s3cret@host/0"
    assert "s3cret" not in repr(settings)


def test_refusals_of_gunicorn_are_problem_documents_with_headers(tmp_path, published_models):
    settings = {"MODEL_DIR": str(published_models.path), "RATE_LIMIT": "1/hour"}

    with running_server(tmp_path, settings) as server:
        server.post("/predict", {"features": WINE})
        answer = server.post("/predict", {"features": WINE})

    assert answer.status == 429
    assert read_problem(answer.status, answer.headers, answer.body)["code"] == "rate_limited"
    assert int(answer.headers["Retry-After"]) > 3000
