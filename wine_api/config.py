"""Every setting of the service: its environment variable, type, default and one sentence.

Nothing else in the package reads the environment. docs/configuration.md is written from this file (`make docs`).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from wine_api import __version__

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidSetting(ValueError):
    """A setting has a value that the service cannot start with; the message names the variable."""


# Parsers: from the text of a variable to a value, or ValueError with the words for what was expected.


def _text(text: str) -> str:
    return text


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        expected = f"a whole number from {minimum}" + ("" if maximum is None else f" to {maximum}")
        try:
            number = int(text)
        except ValueError:
            raise ValueError(expected) from None
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(expected)
        return number

    return parse


def _seconds(minimum: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        expected = f"a number of seconds, at least {minimum:g}"
        try:
            number = float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not minimum <= number < float("inf"):
            raise ValueError(expected)
        return number

    return parse


def _yes_or_no(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError("yes or no") from None


def _log_level(text: str) -> str:
    level = text.upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part) for part in _listed(text))
    except ValueError:
        raise ValueError("IP addresses or networks, separated by commas (10.0.0.0/8,::1)") from None


def _object_key(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/") or text.endswith("/"):
        raise ValueError("a key such as models/latest/wine_quality_model.joblib")
    return text


def _setting(variable: str, default: Any, parse: Callable[[str], Any], doc: str, *, shown: str = "") -> Any:
    """Declare a setting; *shown* stands for the default in the docs where it depends on the machine."""
    metadata = {"variable": variable, "parse": parse, "doc": doc, "shown": shown}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _private_folder(name: str) -> Path:
    # Under the system's temporary directory, as HOME may be missing or read-only; directly under it, where nobody else
    # can replace what is this user's.
    return Path(tempfile.gettempdir()) / f"wine-api-{os.getuid()}-{name}"


_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, parsed and checked."""

    api_title: str = _setting(
        "API_TITLE", "Wine Quality API", _text, "The service's name, as `GET /` and the docs say."
    )
    api_version: str = _setting(
        "API_VERSION", __version__, _text, "The service's version, as shown.", shown="the package's version"
    )
    log_level: str = _setting("LOG_LEVEL", "INFO", _log_level, "The least severe level that is logged.")

    aws_profile: str | None = _setting(
        "AWS_PROFILE",
        None,
        _text,
        "The profile of the AWS credentials file to use. botocore's other variables work too.",
    )
    aws_default_region: str | None = _setting("AWS_DEFAULT_REGION", None, _text, "The region of the bucket.")
    s3_bucket_name: str | None = _setting(
        "S3_BUCKET_NAME", None, _text, "The bucket that holds the models. Unset: `MODEL_DIR`, else the bundled model."
    )
    model_dir: Path | None = _setting(
        "MODEL_DIR", None, _path, "A folder used like a bucket. Ignored when `S3_BUCKET_NAME` is set."
    )
    model_key: str = _setting(
        "MODEL_KEY",
        "models/latest/wine_quality_model.joblib",
        _object_key,
        "The key of the model to serve, in the bucket or the folder.",
    )
    model_cache_ttl: float = _setting(
        "MODEL_CACHE_TTL",
        3600.0,
        _seconds(0),
        "Seconds between two looks at the store for a new model, by one worker for the whole host; 0 never looks.",
    )
    model_load_timeout: float = _setting(
        "MODEL_LOAD_TIMEOUT", 60.0, _seconds(1), "Seconds that one whole load (download and checks) may take."
    )
    model_max_bytes: int = _setting(
        "MODEL_MAX_BYTES", 512 * 1024 * 1024, _whole_number(1), "A model file larger than this is refused."
    )
    model_allowed_types: tuple[str, ...] = _setting(
        "MODEL_ALLOWED_TYPES",
        (),
        _listed,
        "Further types a model file may contain, as exact `module.name` pairs separated by commas.",
        shown="none",
    )
    model_public_keys: str = _setting(
        "MODEL_PUBLIC_KEYS",
        "",
        _text,
        "ed25519 keys, one of which must have signed every model: base64 or PEM, separated by commas.",
        shown="none: models need no signature",
    )
    model_cache_dir: Path | None = _setting(
        "MODEL_CACHE_DIR",
        None,
        _path,
        "Where downloaded models are kept, for restarts while the store is away; one folder per instance.",
        shown="a private folder under the system's temporary directory, one per port",
    )
    state_dir: Path | None = _setting(
        "STATE_DIR",
        None,
        _path,
        "Where the workers of this host agree on a model and count together; one folder per instance, best on tmpfs.",
        shown="a private folder under the system's temporary directory, one per port",
    )

    max_body_bytes: int = _setting("MAX_BODY_BYTES", 4 * 1024 * 1024, _whole_number(1), "The largest request body.")
    max_batch_rows: int = _setting("MAX_BATCH_ROWS", 10_000, _whole_number(1), "The most rows of one batch.")

    web_reload: bool = _setting(
        "WEB_RELOAD", False, _yes_or_no, "Restart the workers when the code changes; for development only."
    )
    host: str = _setting("HOST", "127.0.0.1", _text, "The address to listen on; 0.0.0.0 in a container.")
    port: int = _setting("PORT", 8000, _whole_number(1, 65535), "The port to listen on.")
    web_concurrency: int = _setting(
        "WEB_CONCURRENCY", 2, _whole_number(1, 512), "Worker processes; each holds the model."
    )
    web_threads: int = _setting(
        "WEB_THREADS", 4, _whole_number(1, 512), "Threads a worker, so that health never waits."
    )
    drain_seconds: float = _setting(
        "DRAIN_SECONDS",
        0.0,
        _seconds(0),
        "Seconds from SIGTERM in which the service is not ready but answers, until nobody sends it requests any more.",
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        "TRUSTED_PROXIES",
        _LOOPBACK,
        _networks,
        "Who may set X-Forwarded-For, -Proto, -Host and -Prefix: addresses or networks, separated by commas.",
        shown="`127.0.0.0/8,::1/128`",
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from *environ*; an empty variable counts as unset.

        Raises `InvalidSetting`, which names every variable with a bad value.
        """
        values: dict[str, Any] = {}
        complaints = []
        for item, variable in _declared():
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[item.name] = item.metadata["parse"](text)
            except ValueError as error:
                complaints.append(f"{variable} must be {error}")
        if complaints:
            raise InvalidSetting("; ".join(complaints))
        return cls(**values)

    @property
    def state_folder(self) -> Path:
        """`STATE_DIR`, or its default, which is told apart by port so that two instances do not share it."""
        return self.state_dir or _private_folder(f"state-{self.port}")

    @property
    def model_cache_folder(self) -> Path:
        """`MODEL_CACHE_DIR`, or its default, likewise one per port."""
        return self.model_cache_dir or _private_folder(f"cache-{self.port}")


def _declared() -> Iterator[tuple[Field[Any], str]]:
    for item in fields(Settings):
        yield item, item.metadata["variable"]


_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "seconds",
    "bool": "yes or no",
    "Path": "folder",
    "tuple[str, ...]": "list",
    "tuple[Network, ...]": "list",
}


def settings_reference() -> str:
    """Write the table of docs/configuration.md."""
    rows = ["| variable | type | default | what it sets |", "| --- | --- | --- | --- |"]
    defaults = Settings()
    for item, variable in _declared():
        kind = _TYPES[str(item.type).removesuffix(" | None")]
        default = item.metadata["shown"] or _as_written(getattr(defaults, item.name))
        rows.append(f"| `{variable}` | {kind} | {default} | {item.metadata['doc']} |")
    return "\n".join(rows) + "\n"


def _as_written(default: Any) -> str:
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return "`yes`" if default else "`no`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
