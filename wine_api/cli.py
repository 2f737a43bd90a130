"""The `wine-api` command."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from wine_api import __version__
from wine_api.errors import ModelVersionNotFound, WineError
from wine_api.serving.stores.base import ARTIFACT_NAME, LATEST, VersionExists, require_version_name, version_key
from wine_api.serving.stores.local import LocalStore
from wine_api.training.data import InvalidData, read_dataset

if TYPE_CHECKING:
    from wine_api.training.evaluate import Evaluation

_HIGHEST_SEED = 2**32 - 1


class _Refusing(click.Group):
    """Commands that say in one line why they did not do it, and exit with 1 (2 when the command line is wrong)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WineError as error:
            raise click.ClickException(error.detail) from error
        except InvalidData as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise click.ClickException(reason) from error


def _version_name(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        require_version_name(text)
    except WineError as error:
        raise click.BadParameter(error.detail) from error
    return text


@click.group(cls=_Refusing, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wine-api")
def main() -> None:
    """Train the models that Wine API serves."""


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
