"""What a model computes, as functions of plain arrays: scikit-learn's own steps without what it checks around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wine_api.serving.engines.base import Floats, Positions
from wine_api.serving.wine import Matrix


class NotCovered(Exception):
    """Nothing here computes what this model does."""


@dataclass(frozen=True, slots=True)
class Formula:
    """How a model answers for rows of finite numbers, shape (rows, features), in the order that it was trained on.

    *scores* are what it computes first: the values of a regressor, shape (rows,), or one score a class, shape
    (rows, classes), of a classifier; one of two classes may have a single score, shape (rows,). *positions* are the
    classes that it chooses by them, *probabilities* what it makes of them, shape (rows, classes); both are None for a
    regressor. They are told apart because some models choose by their scores, and two scores that differ can become
    the same probability. *uses_trees*: most of the work is in walking down trees.
    """

    scores: Callable[[Matrix], Floats]
    positions: Callable[[Floats], Positions] | None = None
    probabilities: Callable[[Floats], Floats] | None = None
    uses_trees: bool = True

    def after(self, transform: Callable[[Matrix], Matrix]) -> Formula:
        """Return the formula of the same model behind *transform*."""
        return Formula(
            lambda rows: self.scores(transform(rows)), self.positions, self.probabilities, uses_trees=self.uses_trees
        )


def highest(scores: Floats) -> Positions:
    """Return the class with the highest of *scores*, the first of equals."""
    return scores.argmax(axis=1)


def themselves(scores: Floats) -> Floats:
    """Return *scores* that are probabilities already."""
    return scores


def softmax(scores: Floats) -> Floats:
    """Return the probabilities, shape (rows, classes), that a multinomial model makes of *scores*.

    The steps of `sklearn.utils.extmath.softmax`, which takes as long again to find out that it was given numpy arrays.
    """
    probabilities: Floats = scores - scores.max(axis=1).reshape(-1, 1)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=1).reshape(-1, 1)
    return probabilities


def most_probable(probabilities: Callable[[Matrix], Floats], *, uses_trees: bool = True) -> Formula:
    """Return the formula of a classifier that computes *probabilities* and chooses the most probable class."""
    return Formula(probabilities, highest, themselves, uses_trees=uses_trees)
