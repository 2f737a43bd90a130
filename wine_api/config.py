"""Every setting of the service: its environment variable, type, default and one sentence.

Nothing else in the package reads the environment. docs/configuration.md is written from this file (`make docs`).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from wine_api import __version__

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Share = float


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of something in a window of so many seconds."""

    amount: int
    seconds: int


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


def _share(text: str) -> float:
    words = {"all": 1.0, "off": 0.0}
    try:
        share = words.get(text.lower()) if text.lower() in words else float(text)
    except ValueError:
        share = None
    if share is None or not 0.0 <= share <= 1.0:
        raise ValueError("all, off, or a share from 0 to 1")
    return share


def _log_format(text: str) -> str:
    if text.lower() not in ("json", "console"):
        raise ValueError("json or console")
    return text.lower()


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


_WINDOWS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def _rate(text: str) -> Rate:
    amount, _, window = text.partition("/")
    # ASCII: int() would also take digits of other scripts, and a sign.
    if not (amount.isascii() and amount.isdigit() and 0 < int(amount) < 2**53 and window in _WINDOWS):
        raise ValueError("a number per second, minute, hour or day, like 60/minute")
    return Rate(int(amount), _WINDOWS[window])


def _parts(url: str, schemes: Collection[str]) -> SplitResult | None:
    """Return the parts of *url*, or None if it does not begin with one of *schemes* and the name of a host.

    What `urlsplit` says of a URL shows a part of it, which may be a password: so nothing is said here.
    """
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in schemes and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _redis_url(text: str) -> str:
    parts = _parts(text, ("redis", "rediss"))
    # An @ after the host is that of a password with a /, ? or # in it: the host would be its user.
    if (
        parts is None
        or "@" in parts.path + parts.query + parts.fragment
        or re.fullmatch("/?[0-9]*", parts.path) is None
    ):
        raise ValueError("a URL like redis://host:6379/0, or rediss:// for TLS; in a password, / is %2F, ? %3F, # %23")
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = _listed(text.lower())
    for origin in origins:
        parts = _parts(origin, ("http", "https"))
        if parts is None or "@" in parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("exact origins (https://shop.example), separated by commas; there is no wildcard")
    return origins


def _key_set(text: str) -> str:
    if "://" not in text:
        return text  # a file
    parts = _parts(text, ("http", "https"))
    # A password would be taken for a part of the host, and http.client sends nothing but visible ASCII.
    if parts is None or "@" in parts.netloc or re.fullmatch("[!-~]+", text) is None:
        raise ValueError("an https:// URL, without a password and without spaces, or a file")
    return text


# Public keys only: with a shared secret, whoever can check a token can also make one. And never `none`.
_TOKEN_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


def _token_algorithms(text: str) -> tuple[str, ...]:
    algorithms = _listed(text)
    if not algorithms or not set(algorithms) <= _TOKEN_ALGORITHMS:
        raise ValueError(f"some of {', '.join(sorted(_TOKEN_ALGORITHMS))}, separated by commas")
    return algorithms


def _scope_names(text: str) -> tuple[tuple[str, str], ...]:
    pairs = tuple((theirs.strip(), ours.strip()) for theirs, _, ours in (p.rpartition("=") for p in _listed(text)))
    if not all(theirs and ours for theirs, ours in pairs):
        raise ValueError("pairs like wine.read=predict, separated by commas")
    return pairs


def _object_key(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/") or text.endswith("/"):
        raise ValueError("a key such as models/latest/wine_quality_model.joblib")
    return text


def _setting(
    variable: str, default: Any, parse: Callable[[str], Any], doc: str, *, shown: str = "", secret: bool = False
) -> Any:
    """Declare a setting; *shown* stands for the default in the docs where it depends on the machine.

    A *secret* is left out wherever settings are printed.
    """
    metadata = {"variable": variable, "parse": parse, "doc": doc, "shown": shown}
    if callable(default):
        return field(default_factory=default, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


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
    log_format: str = _setting(
        "LOG_FORMAT", "json", _log_format, "How log lines look: `json`, or `console` for people at a terminal."
    )
    log_predictions: Share = _setting(
        "LOG_PREDICTIONS",
        1.0,
        _share,
        "Whether the line of a request says what was predicted: `all`, `off`, or the share of requests that do.",
        shown="`all`",
    )
    log_features: bool = _setting(
        "LOG_FEATURES", False, _yes_or_no, "Whether such a line also holds what was measured; of a batch, ten wines."
    )
    traces: bool = _setting(
        "TRACES",
        False,
        _yes_or_no,
        "Send OpenTelemetry traces; needs the extra `otel`. OpenTelemetry's own `OTEL_…` variables say where.",
    )

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

    max_in_flight: int = _setting(
        "MAX_IN_FLIGHT",
        24,
        _whole_number(1, 4096),
        "The most requests that a worker has under way or waiting; more are refused at once (503).",
    )
    request_deadline: float = _setting(
        "REQUEST_DEADLINE",
        30.0,
        _seconds(0),
        "Seconds after its arrival when a request is no longer worth asking the model for; 0 is never. "
        "Callers may ask for less with X-Request-Deadline-Ms.",
    )

    api_keys_file: Path | None = _setting(
        "API_KEYS_FILE",
        None,
        _path,
        "The file of API keys that `wine-api keys create` writes. Unset: no key is needed (see docs/security.md).",
    )
    jwt_jwks: str | None = _setting(
        "JWT_JWKS",
        None,
        _key_set,
        "The keys of an identity provider whose tokens count as well: an https:// URL or a file. Needs the next two.",
        secret=True,
    )
    jwt_issuer: str | None = _setting("JWT_ISSUER", None, _text, "What a token's `iss` must be.")
    jwt_audience: str | None = _setting("JWT_AUDIENCE", None, _text, "What must be in a token's `aud`.")
    jwt_algorithms: tuple[str, ...] = _setting(
        "JWT_ALGORITHMS",
        ("RS256", "ES256"),
        _token_algorithms,
        "The algorithms that a token may be signed with.",
        shown="`RS256,ES256`",
    )
    jwt_scope_claim: str = _setting(
        "JWT_SCOPE_CLAIM", "scope", _text, "The claim that says what a token's bearer may do."
    )
    jwt_scopes: tuple[tuple[str, str], ...] = _setting(
        "JWT_SCOPES",
        (),
        _scope_names,
        "What the claim's words mean here, like wine.read=predict,wine.admin=model:write.",
        shown="the same words",
    )
    rate_limit: Rate | None = _setting(
        "RATE_LIMIT", None, _rate, "The requests that a caller may send, like 60/minute. Unset: any number."
    )
    rate_limit_rows: Rate | None = _setting(
        "RATE_LIMIT_ROWS", None, _rate, "The wines that a caller may have predicted, like 100000/hour."
    )
    rate_limit_storage: str | None = _setting(
        "RATE_LIMIT_STORAGE",
        None,
        _redis_url,
        "A Redis (redis://… or rediss://…) where several hosts count together. Unset: each host counts for itself.",
        secret=True,
    )
    cors_origins: tuple[str, ...] = _setting(
        "CORS_ORIGINS",
        (),
        _origins,
        "Exact origins (https://shop.example) whose pages may call this API from a browser, separated by commas.",
        shown="none",
    )

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
        _refuse_half_of_tokens(values)
        return cls(**values)

    @property
    def is_open(self) -> bool:
        """Whether nobody needs an API key or a token."""
        return self.api_keys_file is None and self.jwt_jwks is None

    @property
    def state_folder(self) -> Path:
        """`STATE_DIR`, or its default, which is told apart by port so that two instances do not share it."""
        return self.state_dir or _private_folder(f"state-{self.port}")

    @property
    def model_cache_folder(self) -> Path:
        """`MODEL_CACHE_DIR`, or its default, likewise one per port."""
        return self.model_cache_dir or _private_folder(f"cache-{self.port}")


def _refuse_half_of_tokens(values: Collection[str]) -> None:
    """Raise `InvalidSetting` if *values* has some settings of tokens, but not what they need.

    Who sets some of them wants credentials to be asked for; without `JWT_JWKS`, perhaps misspelt, none would be.
    """
    if "jwt_jwks" not in values:
        idle = [variable for item, variable in _declared() if item.name in values and item.name.startswith("jwt_")]
        if idle:
            raise InvalidSetting(f"{', '.join(idle)} must be set together with JWT_JWKS, which is missing")
    elif not {"jwt_issuer", "jwt_audience"} <= {*values}:
        raise InvalidSetting("JWT_JWKS needs JWT_ISSUER and JWT_AUDIENCE")


def _declared() -> Iterator[tuple[Field[Any], str]]:
    for item in fields(Settings):
        yield item, item.metadata["variable"]


_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "seconds",
    "bool": "yes or no",
    "Path": "folder",
    "Share": "share",
    "tuple[str, ...]": "list",
    "tuple[Network, ...]": "list",
    "tuple[tuple[str, str], ...]": "list",
    "Rate": "rate",
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
