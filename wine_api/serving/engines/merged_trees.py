"""All trees of an ensemble as one, so that one call of scikit-learn's own C code walks a row down all of them.

On top of the merged tree is a router: nodes that ask for an extra feature, the number of the tree. A row becomes as
many rows as there are trees, which differ in that number only. Its leaves are added up in the order of the trees, as
scikit-learn does, so that the sums are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wine_api.serving.engines.alike import in_alike_order
from wine_api.serving.engines.base import Floats
from wine_api.serving.engines.plain_trees import (
    LEAF,
    Array,
    Ints,
    Leaves,
    PlainTrees,
    busy_paths_first,
    distinct_leaves,
    sum_in_order,
)
from wine_api.serving.wine import Matrix

# So many rows go down the merged tree in one call: more would leave the fast caches, less would be too many calls.
_WALKS_AT_ONCE = 4096
# From so many rows and trees on, it pays to put the rows in an order in which neighbours are alike.
_MANY_ROWS = 128
_MANY_TREES = 50

# Takes rows of features and a tree's number, and returns the node where each ends.
Walk = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class MergedNodes:
    """The nodes of one tree that holds others, with one entry a node; see `PlainTrees`.

    The first node is the root. The next *leaves* ones are the leaves, which all trees share: where a row ends says
    which of the leaves of its tree it is, and not what it holds.
    """

    left: Ints
    right: Ints
    feature: Ints
    threshold: Floats
    missing_left: Array
    leaves: int


class MergedTrees:
    """Some trees that were merged, and what they add up to."""

    def __init__(self, trees: PlainTrees, features: int, walker: Callable[[MergedNodes, int], Walk]) -> None:
        """Merge *trees*, which ask for *features* features, into one that *walker* can walk down."""
        at_leaf = trees.left == LEAF
        leaves = distinct_leaves(trees.values, trees.tree_of_node[at_leaf], len(trees.roots))
        self._walk = walker(_merged(trees, leaves, features), features)
        self._dtype = np.float32 if walker is single_precision else np.float64
        self._numbers = np.arange(len(trees.roots), dtype=self._dtype)
        self._values = leaves.values
        # Turns the node where a row ended into the row of its values: node 1 is the first leaf of each tree.
        self._row_of_node_0 = (leaves.first_row - 1).reshape(-1, 1)
        self._count = len(trees.roots)
        self._busiest = trees.busiest_features(4)

    def scale(self, factor: float) -> None:
        """Multiply all values by *factor*."""
        self._values *= factor

    def sums(self, rows: Matrix, start: Floats) -> Floats:
        """Return the sums of what each tree says of *rows*, from *start* on, shape (rows, columns * outputs).

        *start* has one row a column and one column an output. The trees take turns: with three columns, every third
        adds to the same one.
        """
        with np.errstate(over="ignore"):  # what is too large for a float32 is larger than all thresholds either way
            single = rows.astype(self._dtype)
        if len(rows) < _MANY_ROWS or self._count < _MANY_TREES:
            return self._sums(single, start)
        return in_alike_order(single, self._busiest, lambda ordered: self._sums(ordered, start))

    def _sums(self, rows: Array, start: Floats) -> Floats:
        columns, outputs = start.shape
        step = columns * max(1, _WALKS_AT_ONCE // (columns * len(rows)))
        numbered = np.empty((min(step, self._count), len(rows), rows.shape[1] + 1), dtype=self._dtype)
        numbered[:, :, :-1] = rows
        sums = start.reshape(columns, 1, outputs)
        for first in range(0, self._count, step):
            sums = sum_in_order(self._said(numbered, first).reshape(-1, columns, len(rows), outputs), sums)
        # Of columns and outputs, there is one of either.
        return np.ascontiguousarray(sums.transpose(1, 0, 2).reshape(len(rows), columns * outputs))

    def _said(self, numbered: Array, first: int) -> Floats:
        """Return what the trees from *first* on say, shape (trees, rows, outputs)."""
        numbers = self._numbers[first : first + len(numbered), np.newaxis]
        numbered = numbered[: len(numbers)]
        numbered[:, :, -1] = numbers
        trees, rows, features = numbered.shape
        ends = self._walk(numbered.reshape(trees * rows, features)).reshape(trees, rows)
        ends += self._row_of_node_0[first : first + trees]
        return self._values.take(ends, axis=0)


# Merging --------------------------------------------------------------------------------------------------------------


def _merged(trees: PlainTrees, leaves: Leaves, features: int) -> MergedNodes:
    """Lay out the root of the router, the leaves, the rest of the router, and the inner nodes of the trees."""
    count = len(trees.roots)
    order = busy_paths_first(trees)
    router = [0, *range(1 + leaves.most_codes, leaves.most_codes + count - 1)]
    first_inner = leaves.most_codes + max(count - 1, 1)
    place = np.empty(len(trees.left), dtype=np.int64)
    place[order] = np.arange(first_inner, first_inner + len(order))
    place[trees.left == LEAF] = 1 + leaves.code
    nodes = _empty_nodes(first_inner + len(order), leaves.most_codes)
    nodes.left[first_inner:] = place[trees.left[order]]
    nodes.right[first_inner:] = place[trees.right[order]]
    nodes.feature[first_inner:] = trees.feature[order]
    nodes.threshold[first_inner:] = trees.threshold[order]
    nodes.missing_left[first_inner:] = trees.missing_left[order]
    nodes.feature[router] = features
    _route(nodes, router, place[trees.roots])
    return nodes


def _empty_nodes(count: int, leaves: int) -> MergedNodes:
    return MergedNodes(
        left=np.full(count, LEAF),
        right=np.full(count, LEAF),
        feature=np.zeros(count, dtype=np.int64),
        threshold=np.zeros(count),
        missing_left=np.zeros(count, dtype=np.uint8),
        leaves=leaves,
    )


def _route(nodes: MergedNodes, router: list[int], roots: Ints) -> None:
    """Make a balanced tree of the nodes *router* that leads each number to one of *roots*."""
    if len(roots) == 1:
        nodes.left[0] = nodes.right[0] = roots[0]
        return
    free = iter(router)
    waiting = [(next(free), 0, len(roots))]
    while waiting:
        node, low, high = waiting.pop()
        middle = (low + high) // 2
        nodes.threshold[node] = middle - 0.5
        for side, start, stop in ((nodes.left, low, middle), (nodes.right, middle, high)):
            if stop - start == 1:
                side[node] = roots[start]
            else:
                side[node] = next(free)
                waiting.append((int(side[node]), start, stop))


# Walking --------------------------------------------------------------------------------------------------------------


def single_precision(nodes: MergedNodes, features: int) -> Walk:
    """Return how to walk down *nodes* as decision trees do: a float32 value against a float64 threshold."""
    # Imported here, as below: a model that needs it has imported it already, others need not.
    from sklearn.tree._tree import NODE_DTYPE, Tree

    records = np.zeros(len(nodes.left), dtype=NODE_DTYPE)
    records["left_child"], records["right_child"] = nodes.left, nodes.right
    records["feature"], records["threshold"] = nodes.feature, nodes.threshold
    records["missing_go_to_left"] = nodes.missing_left
    tree = Tree(features + 1, np.array([1], dtype=np.intp), 1)
    # What a tree holds is kept beside it, once for all leaves that are equal, so here it gets nothing.
    tree.__setstate__(
        {"max_depth": 0, "node_count": len(records), "nodes": records, "values": np.zeros((len(records), 1, 1))}
    )
    walk: Walk = tree.apply
    return walk


def double_precision(nodes: MergedNodes, features: int) -> Walk:
    """Return how to walk down *nodes* as those of hist gradient boosting: float64 values and thresholds."""
    from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    records = np.zeros(len(nodes.left), dtype=PREDICTOR_RECORD_DTYPE)
    records["is_leaf"] = nodes.left == LEAF
    records["left"], records["right"] = np.maximum(nodes.left, 0), np.maximum(nodes.right, 0)
    records["feature_idx"], records["num_threshold"] = nodes.feature, nodes.threshold
    records["missing_go_to_left"] = nodes.missing_left
    records["value"] = np.arange(len(records))
    no_categories: Any = np.zeros((0, 8), dtype=np.uint32)
    no_category_of_feature: Any = np.zeros(features + 1, dtype=np.uint32)

    def walk(rows: Array) -> Array:
        ends = np.empty(len(rows))
        _predict_from_raw_data(records, rows, no_categories, no_categories, no_category_of_feature, 1, ends)
        return ends.astype(np.intp)

    return walk
