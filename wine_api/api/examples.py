"""The examples of the documentation. Every request among them works as it stands: the tests send them."""

from __future__ import annotations

import inspect
from typing import Any

import orjson

from wine_api import errors
from wine_api.api.error_handlers import problem_document
from wine_api.errors import WineError
from wine_api.serving.wine import FEATURE_NAMES, FEATURES

RED = [feature.example for feature in FEATURES]
WHITE = [7.0, 0.27, 0.36, 20.7, 0.045, 45.0, 170.0, 1.001, 3.0, 0.45, 8.8]
_RED_BY_NAME = dict(zip(FEATURE_NAMES, RED, strict=True))
_WHITE_BY_NAME = dict(zip(FEATURE_NAMES, WHITE, strict=True))

_REQUEST_ID = "5f0c8f1e9d7b4f6ea0c3f5d0a1b2c3d4"
_ACCOUNTS = {"model_version": "1.0.0", "processing_time_ms": 0.412, "features_processed": len(FEATURES)}
_PREDICTION: dict[str, Any] = {"prediction": 5, "confidence": 0.71}
_PROBABILITIES = {"3": 0.0, "4": 0.03, "5": 0.71, "6": 0.22, "7": 0.04, "8": 0.0, "9": 0.0}
_WARNINGS = [{"feature": "alcohol", "value": 15.1, "low": 8.0, "high": 14.9}]
_WORKERS = [
    {"slot": 0, "pid": 41, "version": "1.1.0", "generation": 2, "converged": True, "error": None},
    {"slot": 1, "pid": 42, "version": "1.1.0", "generation": 2, "converged": True, "error": None},
]

_REQUESTS = {
    "wine_by_position": ("Eleven numbers, in the published order", {"features": RED}),
    "wine_by_name": ("By name, in any order", {"wine_features": _RED_BY_NAME}),
    "batch_by_position": ("Two wines: a red and a white", {"features_list": [RED, WHITE]}),
    "batch_by_name": ("The same two, by name", {"wine_features_list": [_RED_BY_NAME, _WHITE_BY_NAME]}),
    "latest_version": ("What the store has now", {}),
    "named_version": ("A version by name", {"version": "1.0.0"}),
}
_ANSWERS = {
    "prediction": ("The answer", _PREDICTION | _ACCOUNTS),
    "prediction_with_probabilities": (
        "With ?include=probabilities",
        _PREDICTION | {"probabilities": _PROBABILITIES} | _ACCOUNTS,
    ),
    "prediction_with_warning": (
        "A value outside the training range",
        _PREDICTION | {"warnings": _WARNINGS} | _ACCOUNTS,
    ),
    "batch": (
        "The answer",
        {"predictions": [_PREDICTION, {"prediction": 6, "confidence": 0.64}], "batch_size": 2} | _ACCOUNTS,
    ),
    "reloaded": (
        "Every worker has it",
        {"outcome": "loaded", "version": "1.1.0", "digest": "9c" * 32, "generation": 2, "workers": _WORKERS},
    ),
    "alive": ("Alive", {"status": "alive"}),
    "ready": ("Ready", {"status": "ready"}),
    "loading": ("No model yet", {"status": "loading"}),
    "draining": ("Stopping", {"status": "draining"}),
}
_MEMBERS: dict[type[WineError], dict[str, Any]] = {
    errors.InvalidRequest: {
        "errors": [{"pointer": "/features/3", "code": "not_a_number", "detail": "Must be a number, not text."}]
    },
    errors.ModelRejected: {"gate": "digest", "reason": "digest_differs"},
    errors.ModelStoreUnavailable: {"reason": "unreachable"},
    errors.ModelQuarantined: {"version": "1.1.0", "gate": "digest", "reason": "digest_differs"},
    errors.NotAllowed: {"scope": "model:write"},
    errors.RateLimited: {"limit": "requests"},
    errors.WorkersNotConverged: {
        "workers": [_WORKERS[0], _WORKERS[1] | {"version": "1.0.0", "generation": 1, "converged": False}]
    },
}
# Where the docstring is for developers of this service.
_WORDS: dict[type[WineError], str] = {
    WineError: "Something went wrong here. The log has the details.",
    errors.InvalidRequest: "The body is JSON, but not a valid request; `errors` says where and why.",
}


def all_errors() -> list[type[WineError]]:
    """Return every error of errors.py."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WineError)]


def explain(error: type[WineError]) -> str:
    """Say in a sentence what *error* means."""
    return _WORDS.get(error) or inspect.cleandoc(error.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def named_examples() -> dict[str, dict[str, Any]]:
    """Return all examples by name, as OpenAPI writes them; those of errors are named by their code."""
    named = {name: {"summary": summary, "value": value} for name, (summary, value) in {**_REQUESTS, **_ANSWERS}.items()}
    problems = [
        _problem(405, "method_not_allowed", "Method Not Allowed", "This address does not take this method."),
        *(
            _problem(error.status, error.code, error.title, explain(error).replace("`", ""), _MEMBERS.get(error))
            for error in all_errors()
        ),
    ]
    return named | {problem["value"]["code"]: problem for problem in problems}


def _problem(status: int, code: str, title: str, detail: str, members: dict[str, Any] | None = None) -> dict[str, Any]:
    document = problem_document(status, code, title, detail, _REQUEST_ID, members)
    return {"summary": title, "value": orjson.loads(document)}
