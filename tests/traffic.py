"""Clients that predict without a pause, each over one connection that it keeps."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.models import WINE
from tests.server import PATIENCE_SECONDS, Caller

_BODY = json.dumps({"features": WINE}).encode()
_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Heard:
    """The answer to one prediction, with when it was asked for and how long it took, in seconds."""

    asked_at: float
    seconds: float
    status: int
    body: bytes

    @property
    def says(self) -> tuple[str, Any]:
        """The version that says to have answered, and what it answered."""
        answer = json.loads(self.body)
        return answer["model_version"], answer["prediction"]


class Traffic:
    """Predictions of the same wine, from entering the context to leaving it.

    *errors* is what happened to connections. One that the server closes between two requests is an error too.
    """

    def __init__(self, service: Caller, clients: int, *, pause: float = 0.0) -> None:
        self.heard: list[Heard] = []
        self.errors: list[Exception] = []
        self._service = urllib.parse.urlsplit(service.url)
        self._pause = pause
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._predict) for _ in range(clients)]

    def __enter__(self) -> Traffic:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    @property
    def statuses(self) -> set[int]:
        return {heard.status for heard in self.heard}

    @property
    def said(self) -> set[tuple[str, Any]]:
        """What was answered, each with the version that says to have answered it."""
        return {heard.says for heard in self.heard if heard.status == 200}

    def _predict(self) -> None:
        connection = http.client.HTTPConnection(self._service.netloc, timeout=PATIENCE_SECONDS)
        while not self._over.wait(self._pause):
            asked_at = time.monotonic()
            try:
                connection.request("POST", f"{self._service.path}/predict", _BODY, _HEADERS)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(error)
                connection.close()
            else:
                self.heard.append(Heard(asked_at, time.monotonic() - asked_at, answer.status, body))
        connection.close()


def percentile(seconds: Sequence[float], share: float) -> float:
    """Return the value that *share* of *seconds* do not exceed."""
    return sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
