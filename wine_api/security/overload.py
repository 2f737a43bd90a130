"""What a worker with too much to do answers at once, from nothing but the first bytes of a request.

A request that is refused must cost a small part of one that is answered, or refusing alone would fill the processor.
So nothing is parsed here: what is sent is the same for all, and the connection is closed.
"""

from __future__ import annotations

import re
import uuid

from wine_api.errors import Overloaded

RETRY_SECONDS = 1
MOST_BYTES = 65536  # of a request that are looked at
_DETAIL = "The service has more requests under way than it can answer soon. Try again in a moment."

# Health, and the metrics that show the overload.
_ALWAYS_ANSWERED = re.compile(rb"(?:GET|HEAD) /(?:health(?:/live|/ready)?|metrics)[ ?]")
# These wait for the store and for other workers, as long as `MODEL_LOAD_TIMEOUT` says, and not for the processor.
WAITING = {"/model/reload": "POST", "/model/rollback": "POST", "/model/versions": "GET"}
_ONLY_WAITS = re.compile("(?:{})[ ?]".format("|".join(f"{method} {path}" for path, method in WAITING.items())).encode())
_REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127})[ \t]*\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)

_BODY = (
    b'{"type":"urn:wine-api:error:%(code)s","title":"%(title)s","status":503,"detail":"%(detail)s","code":"%(code)s",'
    b'"request_id":"%%b"}'
) % {b"code": Overloaded.code.encode(), b"title": Overloaded.title.encode(), b"detail": _DETAIL.encode()}
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: %d\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %%d\r\nX-Request-ID: %%b\r\n\r\n"
) % RETRY_SECONDS


def is_always_answered(beginning: bytes) -> bool:
    """Whether the request that begins so is answered however much there is to do."""
    return _ALWAYS_ANSWERED.match(beginning) is not None


def only_waits(beginning: bytes) -> bool:
    """Whether the request that begins so takes little of the processor, so that more of them can be under way."""
    return _ONLY_WAITS.match(beginning) is not None


def refusal(beginning: bytes) -> bytes:
    """Return the whole answer to the request that begins so."""
    head_end = beginning.find(b"\r\n\r\n")
    found = _REQUEST_ID.search(beginning, 0, head_end + 2 if head_end >= 0 else len(beginning))
    request_id = found[1] if found else uuid.uuid4().hex.encode()
    body = b"" if beginning.startswith(b"HEAD ") else _BODY % request_id
    return _HEAD % (len(_BODY % request_id), request_id) + body


def is_whole(beginning: bytes) -> bool:
    """Whether nothing more will come of the request that begins so, as far as its headers tell."""
    head_end = beginning.find(b"\r\n\r\n")
    if head_end < 0 or b"transfer-encoding" in beginning[:head_end].lower():
        return False
    found = _LENGTH.search(beginning, 0, head_end + 2)
    return len(beginning) >= head_end + 4 + (int(found[1]) if found else 0)
