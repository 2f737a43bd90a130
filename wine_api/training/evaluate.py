"""How good a model is: cross-validation that lets no wine sit in both training and test.

Almost one in five rows of the UCI tables repeats another. In a random split most of the repeated wines that are tested
were also trained on, and accuracy comes out ten points too good. Here all rows with the same measurements lie in one
fold.

The out-of-fold predictions of all folds are pooled and scored twice: over all rows, so that a wine that is there five
times counts five times, and over distinct wines, where each counts once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, mean_absolute_error
from sklearn.model_selection import StratifiedKFold

from wine_api.training.data import Dataset, InvalidData, Labels
from wine_api.training.train import new_estimator

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Scores:
    """How close predictions come to the tasters.

    *mae* is the mean absolute error in points of quality, *qwk* Cohen's kappa with quadratic weights, *within_one* the
    share of wines that are at most one point off. *majority_accuracy* is what always answering the most frequent
    quality would reach.
    """

    rows: int
    accuracy: float
    mae: float
    qwk: float
    macro_f1: float
    within_one: float
    majority_accuracy: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one cross-validation, and how it was done."""

    folds: int
    seed: int
    all_rows: Scores
    distinct_wines: Scores

    def as_metrics(self) -> dict[str, Any]:
        """Return the scores as the model card carries them."""
        return {
            "method": "stratified cross-validation, equal measurements in one fold, out-of-fold predictions pooled",
            **asdict(self),
        }


def evaluate(dataset: Dataset, *, folds: int, seed: int, on_fold: Callable[[], None] = lambda: None) -> Evaluation:
    """Cross-validate the estimator on *dataset*, and call *on_fold* after each fold."""
    predicted = np.empty_like(dataset.qualities)
    for train, test in split(dataset, folds=folds, seed=seed):
        model = new_estimator(seed).fit(dataset.wines[train], dataset.qualities[train])
        predicted[test] = model.predict(dataset.wines[test])
        on_fold()
    first, _ = _distinct(dataset)
    return Evaluation(
        folds=folds,
        seed=seed,
        all_rows=score(dataset.qualities, predicted),
        distinct_wines=score(dataset.qualities[first], predicted[first]),
    )


def split(dataset: Dataset, *, folds: int, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows to train on and the rows to test, once for each fold.

    Distinct wines are dealt into folds of like qualities; their repetitions follow them.
    """
    first, wine_of_row = _distinct(dataset)
    qualities = dataset.qualities[first]
    if np.bincount(qualities).max() < folds:
        raise InvalidData(f"too few wines for {folds} folds: no quality has that many different ones")
    dealer = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A quality with fewer wines than folds is missing from some folds: nothing better can be done with so few.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        dealt = list(dealer.split(first, qualities))
    for _, tested in dealt:
        is_tested = np.isin(wine_of_row, tested)
        yield np.flatnonzero(~is_tested), np.flatnonzero(is_tested)


def _distinct(dataset: Dataset) -> tuple[Rows, Rows]:
    """Return the first row of each distinct wine, and for each row the number of its wine."""
    _, first, wine_of_row = np.unique(dataset.wines, axis=0, return_index=True, return_inverse=True)
    return first, wine_of_row


def score(actual: Labels, predicted: Labels) -> Scores:
    """Compare *predicted* qualities with the *actual* ones."""
    distance = np.abs(actual - predicted)
    both = np.concatenate([actual, predicted])
    # Kappa weighs by position in this list: qualities that nobody gave must not move the others together.
    scale = np.arange(both.min(), both.max() + 1)
    return Scores(
        rows=len(actual),
        accuracy=float(accuracy_score(actual, predicted)),
        mae=float(mean_absolute_error(actual, predicted)),
        qwk=float(cohen_kappa_score(actual, predicted, labels=scale, weights="quadratic")),
        macro_f1=float(f1_score(actual, predicted, average="macro", zero_division=0.0)),
        within_one=float((distance <= 1).mean()),
        majority_accuracy=float(np.bincount(actual).max() / len(actual)),
    )
