"""The `wine-api` command."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from wine_api import __version__
from wine_api.config import InvalidSetting, Settings
from wine_api.errors import ModelRejected, ModelVersionNotFound, WineError
from wine_api.security import keys as api_keys
from wine_api.security.access import Scope
from wine_api.serving.stores.base import (
    ARTIFACT_NAME,
    LATEST,
    PublishingStore,
    StoredModel,
    VersionExists,
    require_version_name,
    version_key,
)
from wine_api.serving.stores.local import LocalStore
from wine_api.training.data import InvalidData, read_dataset

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wine_api.serving.gates import Policy
    from wine_api.training.evaluate import Evaluation
    from wine_api.training.publish import GateResult, Move, Release

_HIGHEST_SEED = 2**32 - 1
_S3_SCHEME = "s3://"


class _Refusing(click.Group):
    """Commands that say in one line why they did not do it, and exit with 1 (2 when the command line is wrong)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (WineError, InvalidData, api_keys.InvalidKeyFile, api_keys.NoSuchKey, OSError) as error:
            raise click.ClickException(_on_one_line(_reason(error))) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ModelRejected):
        return f"The gate {error.gate} refuses the model ({error.reason}). {error.detail}"
    if isinstance(error, api_keys.InvalidKeyFile):
        return f"The file of API keys cannot be used: {error}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _on_one_line(text: str) -> str:
    """Show *text*, of which a file may have had its say, so that it cannot drive a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _version_name(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    try:
        if text is not None:
            require_version_name(text)
    except WineError as error:
        raise click.BadParameter(error.detail) from error
    return text


_existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_to = click.option(
    "--to", "place", metavar="PLACE", required=True, help="Where the models are kept: s3://BUCKET, or a folder."
)
_card = click.option(
    "--card", type=_existing_file, help="The model's card; unless named, model_card.json in the same folder."
)


@click.group(cls=_Refusing, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wine-api")
def main() -> None:
    """Train, check and publish the models that Wine API serves."""
    # What the parts log is meant for a service; here, people are told.
    logging.getLogger("wine_api").addHandler(logging.NullHandler())


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that holds models/; it is made if need be.",
)
@click.option("--version", required=True, callback=_version_name, help="The name of the new version, like 1.4.0.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, _HIGHEST_SEED),
    help="The same seed, data and libraries make the same file.",
)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2), help="Folds of the cross-validation.")
@click.option("--latest", is_flag=True, help="Also copy the model to models/latest, from where services take it.")
def train(data: tuple[Path, ...], output: Path, version: str, seed: int, folds: int, latest: bool) -> None:
    """Train a model on the tables DATA and put it, with its card, under DIR/models/VERSION.

    DATA are CSV files like UCI's "Wine Quality": 11 measurements and the quality, separated by semicolons or commas.
    """
    # Imported here: scikit-learn takes a second, and the help and the other commands need none.
    from wine_api.training.card import build_card
    from wine_api.training.evaluate import evaluate
    from wine_api.training.train import fit, write_artifact

    dataset = read_dataset(data)
    output.mkdir(parents=True, exist_ok=True)
    store = LocalStore(output, model_key=version_key(LATEST))
    _refuse_if_published(store, version)
    # The artifact is made inside the folder: one that cannot be written to is found out before the work is done.
    with TemporaryDirectory(prefix=".training-", dir=output) as workplace:
        artifact = Path(workplace) / ARTIFACT_NAME
        with click.progressbar(length=folds + 1, label="Training", file=sys.stderr) as progress:
            evaluation = evaluate(dataset, folds=folds, seed=seed, on_fold=lambda: progress.update(1))
            model = fit(dataset, seed)
            progress.update(1)
        write_artifact(model, artifact)
        card = build_card(
            model=model,
            dataset=dataset,
            metrics=evaluation.as_metrics(),
            artifact=artifact,
            version=version,
            created_at=datetime.now(UTC),
        )
        store.put_version(version, artifact, card, signature=None)
    _report(evaluation)
    click.echo(f"Wrote {output / version_key(version)}")
    if latest:
        store.promote(version)
        click.echo(f"Wrote {output / version_key(LATEST)}")


def _refuse_if_published(store: LocalStore, version: str) -> None:
    """Say so before the work: the store itself refuses only when it is done."""
    with suppress(ModelVersionNotFound):
        store.find(version)
        raise VersionExists(f"The version {version} exists already, and versions never change.")


def _report(evaluation: Evaluation) -> None:
    all_rows, distinct_wines = asdict(evaluation.all_rows), asdict(evaluation.distinct_wines)
    click.echo(f"{f'{evaluation.folds}-fold cross-validation':24}{'all rows':>16}{'distinct wines':>16}")
    for name, value in all_rows.items():
        click.echo(f"{name:24}{_shown(value)}{_shown(distinct_wines[name])}")


def _shown(value: float) -> str:
    return f"{value:16}" if isinstance(value, int) else f"{value:16.4f}"


@main.command()
@click.argument("file", type=_existing_file)
@_card
@click.option(
    "--signature", type=_existing_file, help="The card's signature; unless named, the file beside it that ends in .sig."
)
@click.option(
    "--public-keys",
    metavar="KEYS",
    help="Keys, one of which must have signed, as in MODEL_PUBLIC_KEYS (which is the default), or a file of them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(
    ctx: click.Context, file: Path, card: Path | None, signature: Path | None, public_keys: str | None, as_json: bool
) -> None:
    """Say of each gate whether FILE passes it.

    The gates are those that a model must pass before it is served. The exit code is 0 if it would be, 1 if not.

    MODEL_ALLOWED_TYPES, MODEL_MAX_BYTES and MODEL_PUBLIC_KEYS count as they do for the service.
    """
    from wine_api.serving.trial import SpawnedTrial
    from wine_api.training import publish as publishing

    settings = _settings()
    policy = _policy(settings, public_keys)
    candidate = publishing.candidate_of(file, card, signature)
    results = publishing.examine(candidate, policy, SpawnedTrial(settings.model_load_timeout))
    served = all(result.outcome == publishing.PASSED for result in results)
    if as_json:
        click.echo(json.dumps({"served": served, "gates": [asdict(result) for result in results]}, indent=1))
    else:
        _report_gates(results)
        click.echo("It would be served." if served else "It would be refused.")
    ctx.exit(0 if served else 1)


def _report_gates(results: Sequence[GateResult]) -> None:
    rows = [("gate", "verdict", "reason", "ms", "detail"), *map(_shown_result, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for gate, verdict, reason, ms, detail in rows:
        cells = (gate.ljust(widths[0]), verdict.ljust(widths[1]), reason.ljust(widths[2]), ms.rjust(widths[3]), detail)
        click.echo("  ".join(cells).rstrip())


def _shown_result(result: GateResult) -> tuple[str, str, str, str, str]:
    ms = "" if result.ms is None else f"{result.ms:.1f}"
    return result.gate, result.outcome, result.reason or "", ms, _on_one_line(result.detail)


@main.command()
@click.argument("file", type=_existing_file)
@_to
@click.option("--version", callback=_version_name, help="The version that the card must say; unless given, it decides.")
@_card
@click.option("--key", type=_existing_file, help="Sign the card with this private key (see wine-api keys).")
@click.option("--without-card", is_flag=True, help="Publish a model of which nothing is known; needs --version.")
@click.option("--no-promote", is_flag=True, help="Leave the latest, which services load, as it is.")
def publish(
    file: Path,
    place: str,
    version: str | None,
    card: Path | None,
    key: Path | None,
    without_card: bool,
    no_promote: bool,
) -> None:
    """Check FILE, put it into a bucket or a folder, serve it.

    It has to pass every gate that it has to pass in a service, and it has to have a card, unless
    you say that it has none.

    A version is never changed. `latest`, which services load, is moved last: whatever happens before, they are served
    what they were served. A publish that broke off can be repeated.

    MODEL_ALLOWED_TYPES, MODEL_MAX_BYTES and MODEL_PUBLIC_KEYS count as they do for the service.
    """
    from wine_api.serving.gates import Candidate
    from wine_api.serving.trial import SpawnedTrial
    from wine_api.training import publish as publishing

    settings = _settings()
    policy, store, signer = _policy(settings), _store_at(place, settings), _private_key(key)
    if without_card and (card or key or version is None):
        raise click.UsageError(
            "--without-card goes with --version, and not with --card or --key: it is the card that is signed"
        )
    candidate = Candidate(file) if without_card else publishing.candidate_of(file, card)
    trial = SpawnedTrial(settings.model_load_timeout)
    with publishing.vetted_release(
        candidate, policy, trial, version=version, key=signer, needs_card=not without_card
    ) as release:
        model = release.model
        click.echo(f"Passed every gate: a {type(model.estimator).__name__}, sha256 {model.digest}")
        if not place.startswith(_S3_SCHEME):
            Path(place).mkdir(parents=True, exist_ok=True)
        _upload(store, release, place)
        if no_promote:
            click.echo(f"{LATEST} is still {_named(publishing.latest_of(store))}. To change that:")
            click.echo(f"  {_promotion_of(release.version, place)}")
        else:
            _report_move(publishing.promote(store, release.version, policy), place)


def _upload(store: PublishingStore, release: Release, place: str) -> None:
    from wine_api.training import publish as publishing

    size = release.artifact.stat().st_size
    with click.progressbar(length=size, label="Uploading", file=sys.stderr) as progress:
        is_new = publishing.upload(store, release, progress.update)
    signed = "unsigned" if release.signature is None else "signed"
    if is_new:
        click.echo(f"Uploaded version {release.version} to {place} ({size} bytes, {signed})")
    else:
        click.echo(f"Version {release.version} is in {place} already, the same bytes")


@main.command()
@click.argument("version", callback=_version_name)
@_to
def promote(version: str, place: str) -> None:
    """Make VERSION the latest, which services load.

    VERSION was published before; this is also the way back to an older one.
    """
    from wine_api.training import publish as publishing

    settings = _settings()
    _report_move(publishing.promote(_store_at(place, settings), version, _policy(settings)), place)


def _report_move(move: Move, place: str) -> None:
    click.echo(f"{LATEST}: {_named(move.before)} -> {_named(move.after)}")
    click.echo("Services load it when they look next (MODEL_CACHE_TTL), or at once: POST /model/reload")
    if move.before is None or move.before.version == move.after.version:
        return
    if move.before.published_as is None:
        click.echo("What was there was uploaded by hand, and has no version to go back to.")
    else:
        click.echo(f"To go back:\n  {_promotion_of(move.before.published_as, place)}")


def _named(model: StoredModel | None) -> str:
    if model is None:
        return "nothing"
    return model.version or "an upload without a name"


def _promotion_of(version: str, place: str) -> str:
    return shlex.join(["wine-api", "promote", version, "--to", place])


@main.group(invoke_without_command=True, subcommand_metavar="[COMMAND]")
@click.option(
    "--output",
    metavar="DIR",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where model-signing.key and model-signing.pub are written, unless this folder; it is made if need be.",
)
@click.option("--private-key", type=click.Path(path_type=Path), help="Write the private key to this file instead.")
@click.option("--public-key", type=click.Path(path_type=Path), help="Write the public key to this file instead.")
@click.pass_context
def keys(ctx: click.Context, output: Path, private_key: Path | None, public_key: Path | None) -> None:
    """Make a pair of keys to sign models with; or, with a COMMAND, manage the API keys of callers.

    Without a command: ed25519. The private key is for `wine-api publish --key`, and only its owner can read it. The
    public key is for the services. No file is ever overwritten.
    """
    if ctx.invoked_subcommand is not None:
        if any(ctx.get_parameter_source(name) is not ParameterSource.DEFAULT for name in ctx.params):
            raise click.UsageError(f"{ctx.invoked_subcommand} takes its options behind its name")
        return
    from wine_api.serving.signatures import public_key_line
    from wine_api.training.keys import PRIVATE_KEY_NAME, PUBLIC_KEY_NAME, write_key_pair

    if private_key is None or public_key is None:
        output.mkdir(parents=True, exist_ok=True)
    private_key, public_key = private_key or output / PRIVATE_KEY_NAME, public_key or output / PUBLIC_KEY_NAME
    made = write_key_pair(private_key, public_key)
    click.echo(f"Wrote {private_key}: keep it secret; wine-api publish --key takes it", err=True)
    click.echo(f"Wrote {public_key}; services with this setting load only what is signed:", err=True)
    click.echo(f"MODEL_PUBLIC_KEYS={public_key_line(made)}")


_key_file = click.option(
    "--file",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of API keys; API_KEYS_FILE, unless named.",
)


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it allows.",
)
@click.option("--days", type=click.IntRange(1, 3660), help="For how many days it is valid; for ever, unless given.")
@_key_file
def create_api_key(name: str, scopes: tuple[str, ...], days: int | None, file: Path | None) -> None:
    """Make an API key for NAME, and print it: it is shown this once only.

    The file keeps its SHA-256 digest. A running service takes the change up by itself.
    """
    if not name.strip() or not name.isprintable() or len(name) > 64:
        raise click.UsageError("NAME must be 1 to 64 printable characters")
    file = _named_key_file(file)
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    key = api_keys.create_key(file, name, [Scope(scope) for scope in scopes], expires_at)
    until = "" if expires_at is None else f" until {expires_at:%Y-%m-%d}"
    click.echo(f"Wrote {name} ({', '.join(sorted(set(scopes)))}){until} to {file}. The key, shown once:", err=True)
    click.echo(key)


@keys.command("revoke")
@click.argument("name")
@_key_file
def revoke_api_key(name: str, file: Path | None) -> None:
    """Take the API key of NAME back: running services refuse it within a second."""
    file = _named_key_file(file)
    api_keys.revoke_key(file, name)
    click.echo(f"Took {name} out of {file}", err=True)


@keys.command("list")
@_key_file
def list_api_keys(file: Path | None) -> None:
    """Say which API keys there are, and what they allow."""
    for key in api_keys.list_keys(_named_key_file(file)):
        until = "" if key.expires_at is None else f"{datetime.fromtimestamp(key.expires_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        click.echo("\t".join((_on_one_line(key.name), ",".join(sorted(key.scopes)), until)).rstrip())


def _named_key_file(file: Path | None) -> Path:
    file = file or _settings().api_keys_file
    if file is None:
        raise click.UsageError("Name the file of API keys: --file FILE, or API_KEYS_FILE")
    return file


def _settings() -> Settings:
    try:
        return Settings.from_environ()
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error


def _policy(settings: Settings, public_keys: str | None = None) -> Policy:
    """Return what a service with these *settings* demands; *public_keys* is text like the setting's, or a file."""
    from wine_api.serving.gates import Policy
    from wine_api.serving.signatures import InvalidPublicKey, parse_public_keys

    text, source = settings.model_public_keys, "MODEL_PUBLIC_KEYS"
    if public_keys is not None:
        text, source = _contents_if_file(public_keys), "--public-keys"
    try:
        trusted = parse_public_keys(text)
    except InvalidPublicKey as error:
        raise click.UsageError(f"{source} must be ed25519 public keys; one is {error}") from error
    return Policy(settings.model_max_bytes, frozenset(settings.model_allowed_types), trusted)


def _contents_if_file(text: str) -> str:
    with suppress(OSError, ValueError):
        return Path(text).read_text()
    return text


def _private_key(path: Path | None) -> Ed25519PrivateKey | None:
    from wine_api.serving.signatures import InvalidPrivateKey, parse_private_key

    if path is None:
        return None
    try:
        return parse_private_key(path.read_bytes())
    except InvalidPrivateKey as error:
        raise click.UsageError(f"--key must name a file with an ed25519 private key; {path} holds {error}") from error


def _store_at(place: str, settings: Settings) -> PublishingStore:
    if not place.startswith(_S3_SCHEME):
        if "://" in place or not place:
            raise click.UsageError(f"--to must be {_S3_SCHEME}BUCKET or a folder, not {place!r}")
        return LocalStore(Path(place), model_key=settings.model_key)
    bucket = place.removeprefix(_S3_SCHEME).removesuffix("/")
    if not bucket or "/" in bucket:
        raise click.UsageError(f"--to must name a bucket and nothing in it: models are under models/, not {place!r}")
    # Imported here: boto3 takes a while, and a folder needs none of it.
    from wine_api.serving.stores.s3 import S3Store

    return S3Store(
        bucket, model_key=settings.model_key, profile=settings.aws_profile, region=settings.aws_default_region
    )
