"""The floor: reads the body, and answers the bytes of a prediction. Nothing can be faster under this server."""

from __future__ import annotations

from typing import Any

ANSWER = (
    b'{"prediction":6,"confidence":0.62,"model_version":"1.0.0","processing_time_ms":0.312,"features_processed":11}'
)
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", HEADERS)
    return [ANSWER]
