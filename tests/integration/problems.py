"""What every error answer must be, whoever caused it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LEAKS = ("Traceback", 'File "', "site-packages", "wine_api/", "/tmp", "/usr/", "/home/", ".py")


def read_problem(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the problem document of an answer, after a check of all that RFC 9457 and our contract ask of it."""
    text = body.decode()
    problem = json.loads(text, parse_constant=_refuse)
    assert headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert problem["status"] == status
    assert problem["type"] == f"urn:wine-api:error:{problem['code']}"
    assert problem["request_id"] == headers["X-Request-ID"]
    assert 0 < len(problem.get("errors", ["none"])) <= 20
    assert not [leak for leak in _LEAKS if leak in text]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    return problem


def problem_of(response: Any) -> dict[str, Any]:
    """Return the problem document in *response* of Flask's test client."""
    return read_problem(response.status_code, response.headers, response.get_data())


def pointers(problem: Mapping[str, Any]) -> dict[str, str]:
    """Return the code of each fault by its pointer."""
    return {fault["pointer"]: fault["code"] for fault in problem["errors"]}


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
