"""Ask the service in this container whether it is well: `python -m wine_api.healthcheck [PATH]`.

For images without curl. It imports no more than it needs, as it runs every few seconds beside the service.
"""

from __future__ import annotations

import http.client
import sys

from wine_api.config import InvalidSetting, Settings

_PATIENCE_SECONDS = 4
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # nosec


def main(arguments: list[str]) -> int:
    """Return 0 if PATH (`/health/ready` if not given) is answered with 200, else 1; say what was seen."""
    path = arguments[0] if arguments else "/health/ready"
    try:
        settings = Settings.from_environ()
        host = _EVERY_ADDRESS.get(settings.host, settings.host)
        connection = http.client.HTTPConnection(host, settings.port, timeout=_PATIENCE_SECONDS)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(1000)
    except (InvalidSetting, OSError, http.client.HTTPException) as error:
        return _say(f"no answer: {error}", 1)
    return _say(f"{answer.status} {body.decode(errors='replace')}", 0 if answer.status == 200 else 1)


def _say(words: str, code: int) -> int:
    sys.stdout.write(words + "\n")  # `docker inspect` shows it
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
