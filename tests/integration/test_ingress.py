"""Two instances behind nginx as the ingress: the prefix, who called, large bodies, and restarts that nobody notices."""

from __future__ import annotations

import http.client
import json
import logging
import os
from contextlib import ExitStack

import pytest

from tests.integration.nginx import running_nginx
from tests.integration.problems import read_problem
from tests.models import WINE
from tests.server import Caller, Server, ended_at_last, free_port, running_server, start_server
from tests.traffic import Traffic, percentile

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
RESTARTS = int(os.environ.get("RESTARTS", "2"))
CLIENTS = 4
PAUSE = 0.02  # seconds between two requests of a client, so that the test leaves the machine some air


@pytest.fixture(scope="module")
def server(tmp_path_factory, published_models):
    """The instance behind nginx."""
    with running_server(tmp_path_factory.mktemp("behind"), {"MODEL_DIR": str(published_models.path)}) as server:
        yield server


@pytest.fixture(scope="module")
def ingress(tmp_path_factory, server) -> Caller:
    """nginx in front of the instance."""
    port = int(server.url.rpartition(":")[2])
    with running_nginx(tmp_path_factory.mktemp("nginx") / "run", [port]) as ingress:
        yield ingress


def padded(size: int) -> bytes:
    """A wine in so many bytes."""
    return json.dumps({"features": WINE}).encode().ljust(size)


def post(caller: Caller, body: bytes):
    return caller.ask("POST", "/predict", body, {"Content-Type": "application/json"})


def problem_of(answer):
    return read_problem(answer.status, answer.headers, answer.body)


def test_links_and_docs_are_under_the_prefix(ingress):
    links = ingress.get("/").json["links"]
    page = ingress.get("/docs/").text
    (server,) = ingress.get("/openapi.json").json["servers"]

    assert all(link.startswith("/wine/") for link in links.values())
    assert '="/wine/' in page
    assert '="/docs' not in page
    assert server["url"] == "/wine"


def test_the_bare_prefix_leads_to_the_service(ingress):
    bare = Caller(ingress.url.removesuffix("/wine"))

    assert bare.get("/wine").headers["Location"] == "/wine/"
    assert problem_of(bare.get("/elsewhere"))["code"] == "not_found"


def test_the_client_is_who_connects_not_who_it_says_it_is(ingress, server):
    connection = http.client.HTTPConnection(ingress.url.split("/")[2], source_address=("127.0.0.2", 0))
    connection.request("GET", "/wine/health/live", headers={"X-Forwarded-For": "198.51.100.7"})
    request_id = connection.getresponse().headers["X-Request-ID"]
    connection.close()

    (line,) = server.access_lines(request_id)

    assert line["client"] == "127.0.0.2"


@pytest.mark.parametrize("given", ["my-own.id/1", None, "not valid"], ids=["valid", "none", "invalid"])
def test_a_request_has_one_id_from_end_to_end(ingress, server, given):
    answer = ingress.get("/health/live", {"X-Request-ID": given} if given else {})

    assert len(server.access_lines(answer.request_id)) == 1
    assert (answer.request_id == given) == (given == "my-own.id/1")


def test_a_body_of_4_mib_passes(ingress):
    answer = post(ingress, padded(4 * MIB))

    assert answer.status == 200
    assert answer.json["prediction"] == 5


@pytest.mark.parametrize("size", [4 * MIB + 1, 9 * MIB], ids=["refused by the service", "refused by nginx"])
def test_a_larger_body_is_a_413_problem(ingress, size):
    answer = post(ingress, padded(size))

    assert answer.status == 413
    assert problem_of(answer)["code"] == "body_too_large"
    assert answer.request_id


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/health/../metrics"])
def test_the_metrics_stay_inside(ingress, path):
    answer = ingress.get(path)

    assert answer.status == 404
    assert problem_of(answer)["code"] == "not_found"


def test_without_any_instance_the_answer_is_a_problem_too(tmp_path):
    with running_nginx(tmp_path / "nginx", [free_port()]) as ingress:
        answer = ingress.get("/health/ready")

    assert answer.status == 503
    assert problem_of(answer)["code"] == "service_unavailable"
    assert answer.headers["Retry-After"]


@pytest.mark.timeout(60 + 30 * RESTARTS)
def test_instances_that_restart_one_after_the_other_lose_no_request(tmp_path, published_models):
    ports = [free_port(), free_port()]
    settings = {"MODEL_DIR": str(published_models.path), "DRAIN_SECONDS": "0.5", "WEB_CONCURRENCY": "1"}
    codes = []
    with ExitStack() as running:

        def start(port: int) -> Server:
            server = start_server(tmp_path / str(port), settings, port=port)
            return running.enter_context(ended_at_last(server))

        servers = {port: start(port) for port in ports}
        for server in servers.values():
            server.wait_for("/health/ready")
        ingress = running.enter_context(running_nginx(tmp_path / "nginx", ports))

        with Traffic(ingress, CLIENTS, pause=PAUSE) as traffic:
            for restart in range(RESTARTS):
                port = ports[restart % 2]
                codes.append(servers[port].stop())
                servers[port] = start(port)
                servers[port].wait_for("/health/ready")

    times = [heard.seconds for heard in traffic.heard]
    logger.info("%d restarts, %d requests, p99 %.3f s", RESTARTS, len(times), percentile(times, 0.99))
    assert codes == [0] * RESTARTS
    assert traffic.errors == []
    assert traffic.statuses == {200}
