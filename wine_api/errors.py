"""Every error a caller can meet: its HTTP status, its stable code and its title.

Errors are raised where they happen, with a detail written for the caller: no path, no payload, no traceback.
Only `api/error_handlers.py` knows how they look on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request body.

    *pointer* is a JSON pointer (RFC 6901) into the body, *code* is stable, *detail* is for people.
    """

    pointer: str
    code: str
    detail: str


class WineError(Exception):
    """The base of all errors that a caller can meet.

    *detail* says what happened in the caller's words. *retry_after* (seconds) becomes the `Retry-After` header; other
    headers of the answer go into `headers`. *members* become further members of the problem document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal server error"

    def __init__(
        self, detail: str, *, retry_after: int | None = None, members: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.headers: dict[str, str] = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.members: dict[str, Any] = dict(members or {})


class MalformedBody(WineError):
    """The body did not arrive whole: cut short, or broken in its transfer coding."""

    status, code, title = 400, "malformed_body", "The request body did not arrive whole"


class InvalidJSON(WineError):
    """The body is not strict JSON."""

    status, code, title = 400, "invalid_json", "The request body is not valid JSON"


class BodyTooLarge(WineError):
    """The body is larger than `MAX_BODY_BYTES`."""

    status, code, title = 413, "body_too_large", "The request body is too large"


class BatchTooLarge(WineError):
    """The batch holds more rows than `MAX_BATCH_ROWS`."""

    status, code, title = 413, "batch_too_large", "The batch has too many rows"


class UnsupportedMediaType(WineError):
    """The body is not `application/json` in UTF-8, or is compressed."""

    status, code, title = 415, "unsupported_media_type", "The media type is not supported"


class InvalidRequest(WineError):
    """The body is JSON, but not a valid request; *faults* says where and why."""

    status, code, title = 422, "validation_failed", "The request is not valid"

    def __init__(self, detail: str, faults: Sequence[Fault]) -> None:
        super().__init__(detail)
        self.faults = tuple(faults)


class NotAuthenticated(WineError):
    """There is no valid API key or token: none was sent, or it is unknown, expired or revoked.

    *challenge* becomes the `WWW-Authenticate` header.
    """

    status, code, title = 401, "not_authenticated", "A valid API key or token is needed"

    def __init__(self, detail: str, challenge: str) -> None:
        super().__init__(detail)
        self.headers["WWW-Authenticate"] = challenge


class NotAllowed(WineError):
    """The API key or token is valid, but does not have the scope that the route needs; `scope` names it."""

    status, code, title = 403, "not_allowed", "The caller may not do this"

    def __init__(self, detail: str, scope: str, challenge: str) -> None:
        super().__init__(detail, members={"scope": scope})
        self.headers["WWW-Authenticate"] = challenge


class RateLimited(WineError):
    """The caller has used up what it may use in a window of time; `limit` says of what: `requests` or `rows`."""

    status, code, title = 429, "rate_limited", "Too many requests"

    def __init__(self, detail: str, limit: str, *, retry_after: int) -> None:
        super().__init__(detail, retry_after=retry_after, members={"limit": limit})


class Overloaded(WineError):
    """The service has as many requests under way as it can answer soon."""

    status, code, title = 503, "overloaded", "The service is overloaded"


class DeadlineExceeded(WineError):
    """The request's deadline passed before the model was asked."""

    status, code, title = 503, "deadline_exceeded", "The deadline has passed"


class IdentityProviderUnavailable(WineError):
    """The keys of the identity provider cannot be had, so no token can be checked."""

    status, code, title = 503, "identity_provider_unavailable", "Tokens cannot be checked"


class ModelNotLoaded(WineError):
    """This worker has no verified model yet."""

    status, code, title = 503, "model_not_loaded", "No model is loaded yet"


class ModelVersionNotFound(WineError):
    """The store holds no such version."""

    status, code, title = 404, "model_version_not_found", "The model version does not exist"


class ModelRejected(WineError):
    """The model did not pass a gate, so it is not served.

    *gate* is the check that refused it (`digest`, `unpickling`, …) and *reason* a stable word for why (`too_large`,
    `type_not_allowed`, …).
    """

    status, code, title = 422, "model_rejected", "The model was refused"

    def __init__(self, gate: str, reason: str, detail: str) -> None:
        super().__init__(detail, members={"gate": gate, "reason": reason})
        self.gate = gate
        self.reason = reason

    def __reduce__(self) -> tuple[type[ModelRejected], tuple[str, str, str]]:
        return type(self), (self.gate, self.reason, self.detail)


class ModelStoreUnavailable(WineError):
    """The model store did not answer, or not in time.

    *reason* is a stable word for the cause (`unreachable`, `timeout`, `forbidden`, `missing_bucket`, …).
    """

    status, code, title = 502, "model_store_unavailable", "The model store is unavailable"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail, members={"reason": reason})
        self.reason = reason


class ModelQuarantined(WineError):
    """The model was refused or rolled back before, and has not changed since."""

    status, code, title = 409, "model_quarantined", "The model is in quarantine"


class NoPreviousModel(WineError):
    """There is no earlier model to go back to on this host."""

    status, code, title = 409, "no_previous_model", "There is no earlier model"


class ModelNotChecked(WineError):
    """The model could not be checked on this host, which says nothing about the model."""

    status, code, title = 503, "model_not_checked", "The model could not be checked"


class WorkersNotConverged(WineError):
    """Not every worker of this host took the new model in time."""

    status, code, title = 504, "workers_not_converged", "Not every worker has the model yet"
