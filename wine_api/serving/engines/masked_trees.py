"""Small trees as tables of bits, so that nobody has to walk down them.

Each leaf of a tree is a bit, the leftmost the lowest. A question that sends a row to the right rules out the leaves on
its left; of those that no question rules out, a row ends in the leftmost. What all questions about one feature rule out
depends on nothing but between which two thresholds its value lies, so it is looked up, for all trees at once. (This is
QuickScorer, by Lucchese et al., 2015, with the questions about a feature answered beforehand.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wine_api.serving.engines.base import Floats
from wine_api.serving.engines.plain_trees import LEAF, Array, Ints, PlainTrees, levels_of, sum_in_order
from wine_api.serving.wine import Matrix

MOST_LEAVES = 64
MOST_BYTES = 16 * 1024 * 1024
# So much is looked up at once: more would leave the fast caches.
_BYTES_AT_ONCE = 1024 * 1024
# For so many rows it is faster to search thresholds feature by feature than to compare with all of them.
_MANY_ROWS = 16


class MaskedTrees:
    """Some small trees, and what they add up to."""

    def __init__(self, trees: PlainTrees, precision: type) -> None:
        """Take *trees*, which compare with values of *precision*, and of which `fits` is true."""
        self._precision = precision
        self._width = _leaves_per_tree(trees)
        self._thresholds = _Thresholds(trees)
        self._masks = _masks(trees, self._thresholds, self._width)
        self._first_leaf = self._width * np.arange(len(trees.roots))
        self._values = self._arranged_values(trees)
        row_bytes = self._masks.itemsize * self._masks.shape[1] * max(1, len(self._thresholds.features))
        self._rows_at_once = max(1, _BYTES_AT_ONCE // row_bytes)

    def _arranged_values(self, trees: PlainTrees) -> Floats:
        """Return the values of all leaves, as many for each tree."""
        at_leaf = trees.left == LEAF
        place = self._first_leaf[trees.tree_of_node[at_leaf]] + _first_leaves(trees)[0][at_leaf]
        values = np.zeros((self._width * len(trees.roots), trees.values.shape[1]))
        values[place] = trees.values
        return values

    def scale(self, factor: float) -> None:
        """Multiply all values by *factor*."""
        self._values *= factor

    def sums(self, rows: Matrix, start: Floats) -> Floats:
        """Return the sums of what each tree says of *rows*; see `MergedTrees.sums`."""
        with np.errstate(over="ignore"):
            exact = rows.astype(self._precision).astype(np.float64)
        places = self._thresholds.places(exact)
        if len(rows) <= self._rows_at_once:
            return self._sums(places, start)
        sums = np.empty((len(rows), start.size))
        for first in range(0, len(rows), self._rows_at_once):
            part = slice(first, first + self._rows_at_once)
            sums[part] = self._sums(places[part], start)
        return sums

    def _sums(self, places: Ints, start: Floats) -> Floats:
        rows, columns = len(places), len(start)
        ends = self._ends(places).reshape(rows, -1, columns).transpose(1, 0, 2)
        # The rounds come first in memory, as they are what is added up.
        ends = np.add(ends, self._first_leaf.reshape(-1, 1, columns), order="C")
        said = self._values.take(ends, axis=0).reshape(len(ends), rows, start.size)
        return sum_in_order(said, start.ravel())

    def _ends(self, places: Ints) -> Array:
        """Return the number of the leaf where each row ends in each tree, shape (rows, trees)."""
        remaining: Array = np.bitwise_and.reduce(self._masks.take(places, axis=0), axis=1)
        # The lowest bit that is set has as many below it as its number says.
        remaining &= -remaining
        remaining -= remaining.dtype.type(1)
        return np.bitwise_count(remaining)


def fits(trees: PlainTrees) -> bool:
    """Whether the tables for *trees* are small enough to be fast, and to be kept."""
    leaves = _leaves_per_tree(trees)
    if leaves > MOST_LEAVES:
        return False
    return _Thresholds(trees).count * len(trees.roots) * _mask_type(leaves)().itemsize <= MOST_BYTES


def _leaves_per_tree(trees: PlainTrees) -> int:
    return int(np.bincount(trees.tree_of_node[trees.left == LEAF]).max())


def _mask_type(leaves: int) -> Any:
    return next(
        kind for bits, kind in ((8, np.uint8), (16, np.uint16), (32, np.uint32), (64, np.uint64)) if leaves <= bits
    )


# Between which thresholds a value lies --------------------------------------------------------------------------------


class _Thresholds:
    """The different thresholds of some trees, feature by feature, each in ascending order.

    A feature with n thresholds has n + 1 places: below the first, between two, and above the last. The places of all
    features, *count* in all, are numbered one after the other.
    """

    def __init__(self, trees: PlainTrees) -> None:
        inner = trees.left != LEAF
        pairs = np.unique(np.stack([trees.feature[inner], trees.threshold[inner]], axis=1), axis=0)
        self.of_feature = pairs[:, 0].astype(np.int64)
        self.values = pairs[:, 1].copy()
        self.features, self._starts = np.unique(self.of_feature, return_index=True)
        # One place more than thresholds for each feature before.
        self.first_place = self._starts + np.arange(len(self.features))
        self.by_feature = np.split(self.values, self._starts[1:]) if len(self.features) else []
        self.count = len(self.values) + len(self.features)

    def places(self, rows: Floats) -> Ints:
        """Return the place of each of *rows* by each of the features, shape (rows, features)."""
        if len(rows) < _MANY_ROWS and len(self.features):
            above = rows.take(self.of_feature, axis=1) > self.values
            places: Ints = np.add.reduceat(above, self._starts, axis=1, dtype=np.int64)
        else:
            places = np.empty((len(rows), len(self.features)), dtype=np.int64)
            for column, (feature, thresholds) in enumerate(zip(self.features, self.by_feature, strict=True)):
                places[:, column] = thresholds.searchsorted(rows[:, feature], side="left")
        places += self.first_place
        return places


# What is ruled out ----------------------------------------------------------------------------------------------------


def _masks(trees: PlainTrees, thresholds: _Thresholds, leaves: int) -> Array:
    """Return the leaves that remain at each place, shape (places, trees)."""
    kind = _mask_type(leaves)
    masks = np.full((thresholds.count, len(trees.roots)), np.iinfo(kind).max, dtype=kind)
    inner = np.flatnonzero(trees.left != LEAF)
    first, count = _first_leaves(trees)
    left = trees.left[inner]
    ruled_out = ((np.uint64(1) << count[left].astype(np.uint64)) - np.uint64(1)) << first[left].astype(np.uint64)
    np.bitwise_and.at(
        masks, (_places_above(trees, thresholds, inner), trees.tree_of_node[inner]), (~ruled_out).astype(kind)
    )
    # What a threshold rules out, all above it do.
    for block in np.split(masks, thresholds.first_place[1:]):
        np.bitwise_and.accumulate(block, axis=0, out=block)
    return masks


def _places_above(trees: PlainTrees, thresholds: _Thresholds, inner: Ints) -> Ints:
    """Return the first place above the threshold of each of the nodes *inner*."""
    place = np.empty(len(inner), dtype=np.int64)
    blocks = zip(thresholds.features, thresholds.first_place, thresholds.by_feature, strict=True)
    for feature, first_place, values in blocks:
        asks = trees.feature[inner] == feature
        place[asks] = first_place + 1 + values.searchsorted(trees.threshold[inner[asks]])
    return place


def _first_leaves(trees: PlainTrees) -> tuple[Ints, Ints]:
    """Return the number of the leftmost leaf below each node, and how many there are."""
    levels = levels_of(trees)
    count = np.ones(len(trees.left), dtype=np.int64)
    for nodes in reversed(levels):
        count[nodes] = count[trees.left[nodes]] + count[trees.right[nodes]]
    first = np.zeros(len(trees.left), dtype=np.int64)
    for nodes in levels:
        first[trees.left[nodes]] = first[nodes]
        first[trees.right[nodes]] = first[nodes] + count[trees.left[nodes]]
    return first, count
