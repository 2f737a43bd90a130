"""Requests for predictions that all parsers of HTTP read in the same way, read without one.

Gunicorn's parser knows all of HTTP, and takes a sixth of what a single wine takes. In an overload that time is missing,
and most requests need little of it: they are a line, some headers, and a body of the length that these tell.
What is not beyond doubt is left to Gunicorn: whatever is coded, folded, repeated, has no length, or has not all come.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import ClassVar

_HEAD = re.compile(
    rb"POST /predict(?:/batch)? HTTP/1\.1"
    rb"(?:\r\n[A-Za-z0-9-]+: [!-~]++(?: [!-~]++)*+){1,50}"  # Gunicorn takes up to 100 headers
)
_LENGTH = re.compile(r"[1-9][0-9]{0,5}")
_ENDS = {"keep-alive": False, "close": True}  # what the header Connection says of the connection
_FOR_GUNICORN = frozenset({"TRANSFER-ENCODING", "EXPECT", "UPGRADE"})


@dataclass(slots=True)
class PlainRequest:
    """What Gunicorn asks of a request. *headers* are as Gunicorn's: their names in capitals, and none twice."""

    path: str
    headers: list[tuple[str, str]]
    body: io.BytesIO
    must_close: bool

    method: ClassVar[str] = "POST"
    query: ClassVar[str] = ""
    version: ClassVar[tuple[int, int]] = (1, 1)
    scheme: ClassVar[str] = "http"
    proxy_protocol_info: ClassVar[None] = None
    _expected_100_continue: ClassVar[bool] = False

    @property
    def uri(self) -> str:
        """The target, as it was sent."""
        return self.path

    def force_close(self) -> None:
        """Have the connection end with the answer."""
        self.must_close = True

    def should_close(self) -> bool:
        """Whether the connection ends with the answer."""
        return self.must_close


def read(content: bytes) -> PlainRequest | None:
    """Return the request that *content* is, all of it and nothing else, or None if that is not beyond doubt."""
    head_end = content.find(b"\r\n\r\n")
    if head_end < 0 or _HEAD.fullmatch(content, 0, head_end) is None:
        return None
    request_line, *lines = content[:head_end].decode("ascii").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        name = name.upper()
        if name in headers or name in _FOR_GUNICORN:
            return None
        headers[name] = value
    body = content[head_end + 4 :]
    length = headers.get("CONTENT-LENGTH", "")
    must_close = _ENDS.get(headers.get("CONNECTION", "keep-alive").lower())
    if must_close is None or not _LENGTH.fullmatch(length) or int(length) != len(body):
        return None
    return PlainRequest(request_line.split(" ")[1], list(headers.items()), io.BytesIO(body), must_close)
