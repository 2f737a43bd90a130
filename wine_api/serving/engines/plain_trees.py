"""Trees of scikit-learn as plain arrays, and where to put their nodes so that walking down them is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wine_api.serving.engines.base import Floats

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

LEAF = -1


@dataclass(frozen=True, slots=True)
class PlainTrees:
    """Some binary trees, one after the other, as arrays with one entry a node.

    *left* and *right* index these arrays and are -1 at a leaf. A row goes left where its *feature* is at most the
    *threshold*, and where it is missing and *missing_left* is set. *weight* is how many training rows came by. *values*
    has one row a leaf, in the order of the leaves, and one column an output. *roots* has one entry a tree.
    """

    roots: Ints
    left: Ints
    right: Ints
    feature: Ints
    threshold: Floats
    missing_left: Array
    weight: Ints
    values: Floats

    @property
    def tree_of_node(self) -> Ints:
        """The number of the tree of each node."""
        return np.repeat(np.arange(len(self.roots)), np.diff(np.append(self.roots, len(self.left))))

    def busiest_features(self, count: int) -> list[int]:
        """Return the *count* features that rows are asked for most often, the busiest first."""
        inner = self.left != LEAF
        asked = np.bincount(self.feature[inner], weights=self.weight[inner])
        return np.argsort(-asked, kind="stable")[:count].tolist()


def read_trees(trees: Sequence[Any]) -> PlainTrees:
    """Return *trees*, each a `sklearn.tree._tree.Tree` with one output."""
    states = [tree.__getstate__() for tree in trees]
    nodes = [state["nodes"] for state in states]
    leaves = [state["nodes"]["left_child"] == LEAF for state in states]
    return _joined(
        [len(one) for one in nodes],
        leaf=np.concatenate(leaves),
        left=_field(nodes, "left_child"),
        right=_field(nodes, "right_child"),
        feature=_field(nodes, "feature"),
        threshold=_field(nodes, "threshold"),
        missing_left=_field(nodes, "missing_go_to_left"),
        weight=_field(nodes, "n_node_samples"),
        values=np.concatenate([state["values"][leaf, 0, :] for state, leaf in zip(states, leaves, strict=True)]),
    )


def read_predictors(predictors: Sequence[Any]) -> PlainTrees:
    """Return *predictors*, each a `TreePredictor` of a hist gradient boosting that asks for no categories."""
    nodes = [predictor.nodes for predictor in predictors]
    leaf = _field(nodes, "is_leaf") != 0
    return _joined(
        [len(one) for one in nodes],
        leaf=leaf,
        left=_field(nodes, "left"),
        right=_field(nodes, "right"),
        feature=_field(nodes, "feature_idx"),
        threshold=_field(nodes, "num_threshold"),
        missing_left=_field(nodes, "missing_go_to_left"),
        weight=_field(nodes, "count"),
        values=_field(nodes, "value")[leaf].reshape(-1, 1),
    )


def _field(nodes: Sequence[Array], name: str) -> Array:
    return np.concatenate([one[name] for one in nodes])


def _joined(counts: Sequence[int], *, leaf: Array, left: Array, right: Array, **fields: Array) -> PlainTrees:
    roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    moved = np.repeat(roots, counts)
    return PlainTrees(
        roots=roots,
        left=np.where(leaf, LEAF, left.astype(np.int64) + moved),
        right=np.where(leaf, LEAF, right.astype(np.int64) + moved),
        **fields,
    )


def sum_in_order(said: Floats, start: Floats) -> Floats:
    """Add up *said*, which may change, along its first axis, one after the other, to *start*.

    numpy does so along all axes but the last: where only that is left, it adds up in pairs, which rounds differently.
    """
    said[0] += start
    if len(said) == 1:
        return said[0]
    if said[0].size == 1:
        last: Floats = np.add.accumulate(said, axis=0)[-1]
        return last
    total: Floats = np.add.reduce(said, axis=0)
    return total


# Fewer leaves ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of some trees, where those of one tree that hold the same values are one.

    *code* numbers them within their tree, one entry a leaf. Those of all trees are rows of *values*, and those of a
    tree begin at its *first_row*.
    """

    code: Ints
    values: Floats
    first_row: Ints

    @property
    def most_codes(self) -> int:
        """How many different leaves a tree has at most."""
        return int(self.code.max()) + 1


def distinct_leaves(values: Floats, tree: Ints, trees: int) -> Leaves:
    """Find the leaves that are equal, bit by bit, and of the same of the *trees*: most of a forest's hold one class."""
    first, group = _grouped(values, tree)
    by_tree = np.argsort(tree[first], kind="stable")
    place = np.empty_like(by_tree)
    place[by_tree] = np.arange(len(by_tree))
    first_row = np.searchsorted(tree[first][by_tree], np.arange(trees))
    return Leaves(code=place[group] - first_row[tree], values=values[first][by_tree], first_row=first_row)


def _grouped(values: Floats, tree: Ints) -> tuple[Ints, Ints]:
    """Return the first leaf of each group of equal ones, and the group of each leaf."""
    bits = np.column_stack([np.ascontiguousarray(values).view(np.uint64), tree.astype(np.uint64)])
    # Sorting hashes takes a fifth of the time of sorting rows.
    _, first, group = np.unique(_hashed(bits), return_index=True, return_inverse=True)
    if not np.array_equal(bits[first][group], bits):
        _, first, group = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return first, group.ravel()


def _hashed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    odd = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    # Round numbers differ only in their high bits, which a product would lose.
    mixed = (bits ^ (bits >> np.uint64(31))) * odd
    hashes: npt.NDArray[np.uint64] = mixed.sum(axis=1, dtype=np.uint64)
    return hashes ^ (hashes >> np.uint64(29))


# A better order -------------------------------------------------------------------------------------------------------


def busy_paths_first(trees: PlainTrees) -> Ints:
    """Return the inner nodes of *trees* in the order in which they should lie in memory.

    Tree by tree, and the child that more training rows went to directly behind its parent: a row then mostly walks on
    to the neighbour of the node where it is, which the processor has fetched by then. With other work between two
    rows, that takes two thirds of the time that scikit-learn's order takes, and half of that level by level.
    """
    levels = levels_of(trees)
    size = np.zeros(len(trees.left), dtype=np.int64)
    for nodes in reversed(levels):
        size[nodes] = 1 + size[trees.left[nodes]] + size[trees.right[nodes]]
    position = np.zeros(len(trees.left), dtype=np.int64)
    position[trees.roots] = np.cumsum(size[trees.roots]) - size[trees.roots]
    for nodes in levels:
        left, right = trees.left[nodes], trees.right[nodes]
        busy = np.where(trees.weight[left] >= trees.weight[right], left, right)
        position[busy] = position[nodes] + 1
        position[left + right - busy] = position[nodes] + 1 + size[busy]
    inner = np.flatnonzero(trees.left != LEAF)
    order = np.empty(len(inner), dtype=np.int64)
    order[position[inner]] = inner
    return order


def levels_of(trees: PlainTrees) -> list[Ints]:
    """Return the inner nodes by their distance from the root."""
    levels = []
    nodes = trees.roots[trees.left[trees.roots] != LEAF]
    while len(nodes):
        levels.append(nodes)
        children = np.concatenate([trees.left[nodes], trees.right[nodes]])
        nodes = children[trees.left[children] != LEAF]
    return levels
