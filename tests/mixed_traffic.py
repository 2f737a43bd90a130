"""Requests of every kind, counted by the client that sends them, as the service should count them."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families as parse

from tests.models import WINE
from tests.server import PATIENCE_SECONDS, Server

Key = tuple[str, ...]
_JSON = {"Content-Type": "application/json"}
_REQUESTS = "flask_http_request_total"
_SECONDS = "flask_http_request_duration_seconds_count"


@dataclass(frozen=True)
class Ask:
    """A request, with the route that the service should find for it."""

    method: str
    path: str
    route: str = "None"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def counted_method(self) -> str:
        return self.method if self.method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "OTHER"


def _predict(document: object, route: str = "/predict") -> Ask:
    return Ask("POST", route, route, json.dumps(document).encode(), _JSON)


def mixed(count: int) -> Iterator[Ask]:
    """Yield *count* requests, in turns of each kind; made-up paths and methods are never the same."""
    kinds: list[Callable[[int], Ask]] = [
        lambda _: _predict({"features": WINE}),
        lambda number: _predict({"features": [*WINE[:10], 9 + number % 5]}),
        lambda number: _predict({"features_list": [WINE] * (1 + number % 7)}, "/predict/batch"),
        lambda _: _predict({"features": WINE[:5]}),
        lambda _: _predict({"features": [*WINE[:10], "strong"]}),
        lambda _: _predict({"features_list": []}, "/predict/batch"),
        lambda _: Ask("POST", "/predict", "/predict", b'{"features": [NaN]}', _JSON),
        lambda _: Ask("POST", "/predict", "/predict", b"{", _JSON),
        lambda _: Ask("POST", "/predict", "/predict", b"a=b", {"Content-Type": "text/plain"}),
        lambda _: Ask("GET", "/predict"),
        lambda _: Ask("OPTIONS", "/predict", "/predict"),
        lambda _: Ask("GET", "/health", "/health"),
        lambda _: Ask("HEAD", "/health/live", "/health/live"),
        lambda _: Ask("GET", "/health/ready", "/health/ready"),
        lambda _: Ask("GET", "/", "/"),
        lambda _: Ask("GET", "/model", "/model"),
        lambda _: Ask("GET", "/openapi.json", "/openapi.json"),
        lambda number: Ask("GET", f"/made/up/{number}"),
        lambda number: Ask(f"MADEUP{number}", "/predict"),
        lambda number: Ask("DELETE", f"/wine/{number}?id={number}"),
    ]
    for number in range(count):
        yield kinds[number % len(kinds)](number)


class Tally:
    """What was sent and answered, by the samples that the service should show for it."""

    def __init__(self) -> None:
        self.counts: Counter[Key] = Counter()
        self.confidence = 0.0
        self._lock = threading.Lock()

    def add(self, ask: Ask, status: int, body: bytes) -> None:
        """Count the answer to *ask*."""
        with self._lock:
            self._count(_REQUESTS, 1, method=ask.counted_method, status=status)
            self._count(_SECONDS, 1, method=ask.counted_method, url_rule=ask.route, status=status)
            if status >= 400:
                self._count("wine_errors_total", 1, code=json.loads(body)["code"])
            if ask.method == "POST":
                self._add_prediction(ask, status, body)

    def _add_prediction(self, ask: Ask, status: int, body: bytes) -> None:
        endpoint = ask.route.removeprefix("/").replace("/", "_")
        self._count("wine_predictions_total", 1, endpoint=endpoint, outcome="success" if status == 200 else "invalid")
        if status != 200:
            return
        answer = json.loads(body)
        rows = answer.get("predictions", [answer])
        self._count("wine_prediction_rows_total", len(rows))
        self._count("wine_model_seconds_count", 1)
        if ask.route == "/predict/batch":
            self._count("wine_batch_rows_count", 1)
            self._count("wine_batch_rows_sum", len(rows))
        for row in rows:
            self._count("wine_predicted_label_total", 1, label=row["prediction"])
            self._count("wine_confidence_count", 1)
            self.confidence += row["confidence"]

    def _count(self, name: str, amount: int, **labels: object) -> None:
        self.counts[name, *(f"{label}={value}" for label, value in sorted(labels.items()))] += amount


def send(server: Server, asks: Iterable[Ask], clients: int = 8) -> Tally:
    """Send *asks* over *clients* connections and return the count of the answers."""
    tally, waiting, lock, errors = Tally(), iter(asks), threading.Lock(), []

    def next_ask() -> Ask | None:
        with lock:
            return next(waiting, None)

    def work() -> None:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        while (ask := next_ask()) is not None:
            try:
                connection.request(ask.method, ask.path, ask.body, ask.headers)
                answer = connection.getresponse()
                tally.add(ask, answer.status, answer.read())
            except Exception as error:
                errors.append((ask, error))
                connection.close()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return tally


def scrape(server: Server) -> dict[Key, float]:
    """Return every sample that the service shows, by its name and labels."""
    return {
        (sample.name, *(f"{label}={value}" for label, value in sorted(sample.labels.items()))): sample.value
        for family in parse(server.get("/metrics").text)
        for sample in family.samples
    }


def counted(before: dict[Key, float], after: dict[Key, float], names: Iterable[str]) -> Counter[Key]:
    """Return by how much the samples called one of *names* rose."""
    wanted = frozenset(names)
    rises = {key: value - before.get(key, 0) for key, value in after.items() if key[0] in wanted}
    return Counter({key: int(rise) for key, rise in rises.items() if rise})
