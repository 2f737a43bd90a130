"""What a worker with too much to do answers at once, from nothing but the first bytes of a request.

A request that is refused must cost a small part of one that is answered, or refusing alone would fill the processor.
So nothing is parsed here that is not needed, and what is sent is the same for all.
"""

from __future__ import annotations

import math
import random
import re

from wine_api.errors import Overloaded

RETRY_SECONDS = 1
_DETAIL = "The service has more requests under way than it can answer soon. Try again in a moment."

# Health, and the metrics that show the overload.
_ALWAYS_ANSWERED = re.compile(rb"(?:GET|HEAD) /(?:health(?:/live|/ready)?|metrics)[ ?]")
# These wait for the store and for other workers, as long as `MODEL_LOAD_TIMEOUT` says, and not for the processor.
WAITING = {"/model/reload": "POST", "/model/rollback": "POST", "/model/versions": "GET"}
_ONLY_WAITS = re.compile("(?:{})[ ?]".format("|".join(f"{method} {path}" for path, method in WAITING.items())).encode())
_REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127})[ \t]*\r\n", re.IGNORECASE)
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]{1,300})[ \t]*\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)

_BODY = (
    b'{"type":"urn:wine-api:error:%(code)s","title":"%(title)s","status":503,"detail":"%(detail)s","code":"%(code)s",'
    b'"request_id":"%%b"}'
) % {b"code": Overloaded.code.encode(), b"title": Overloaded.title.encode(), b"detail": _DETAIL.encode()}
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: %d\r\n%%bContent-Length: %%d\r\nX-Request-ID: %%b\r\n\r\n"
) % RETRY_SECONDS


class Beginning:
    """The first bytes of a request: best, but not surely, all of its headers."""

    __slots__ = ("_head_end", "content")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._head_end = content.find(b"\r\n\r\n")

    def is_always_answered(self) -> bool:
        """Whether the request is answered however much there is to do."""
        return _ALWAYS_ANSWERED.match(self.content) is not None

    def only_waits(self) -> bool:
        """Whether the request takes little of the processor, so that more of them can be under way."""
        return _ONLY_WAITS.match(self.content) is not None

    def goes_before_others(self) -> bool:
        """Whether the request needs no room among those that are computed."""
        if self.content.startswith(b"POST /predict"):  # nearly all, so they are not looked at twice
            return False
        return self.is_always_answered() or self.only_waits()

    def request_size(self) -> float:
        """Return of how many bytes the request consists, as far as its headers tell; else infinity."""
        if self._head_end < 0 or b"transfer-encoding" in self.content[: self._head_end].lower():
            return math.inf
        found = _LENGTH.search(self.content, 0, self._head_end + 2)
        return self._head_end + 4 + (int(found[1]) if found else 0)

    def origin(self) -> str | None:
        """Return the origin of the web page that sent the request."""
        found = _ORIGIN.search(self.content, 0, self._headers_end())
        return None if found is None else found[1].decode("ascii")

    def refusal(self, headers: bytes = b"") -> bytes:
        """Return the whole answer to the request, with *headers*."""
        found = _REQUEST_ID.search(self.content, 0, self._headers_end())
        request_id = found[1] if found else b"%032x" % random.getrandbits(128)  # nosec B311
        body = _BODY % request_id
        head = _HEAD % (headers, len(body), request_id)
        return head if self.content.startswith(b"HEAD ") else head + body

    def _headers_end(self) -> int:
        return self._head_end + 2 if self._head_end >= 0 else len(self.content)
