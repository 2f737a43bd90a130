"""Trees as plain arrays: equal leaves are found, and nodes come into an order that is fast to walk."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from tests.unit.serving.engines import served
from wine_api.serving.engines import plain_trees
from wine_api.serving.engines.plain_trees import (
    LEAF,
    PlainTrees,
    busy_paths_first,
    distinct_leaves,
    levels_of,
    read_predictors,
    read_trees,
    sum_in_order,
)


@pytest.fixture(scope="module")
def trees() -> PlainTrees:
    forest = RandomForestClassifier(4, min_samples_leaf=2, random_state=0).fit(*served.wines())
    return read_trees([one.tree_ for one in forest.estimators_])


def test_children_are_in_the_same_tree(trees: PlainTrees) -> None:
    inner = trees.left != LEAF

    for children in (trees.left, trees.right):
        assert np.array_equal(trees.tree_of_node[children[inner]], trees.tree_of_node[inner])


def test_hist_gradient_boosting_reads_as_other_trees_do() -> None:
    boosting = HistGradientBoostingClassifier(max_iter=2, random_state=0).fit(*served.wines())
    predictors = [one for trees in boosting._predictors for one in trees]

    plain = read_predictors(predictors)

    assert len(plain.values) == sum(one.get_n_leaf_nodes() for one in predictors)
    assert len(levels_of(plain)) == max(one.get_max_depth() for one in predictors)


@pytest.mark.parametrize("hashes_collide", [False, True])
def test_leaves_are_one_if_they_are_equal_and_of_one_tree(
    hashes_collide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [-0.0, 1.0]])
    tree = np.array([0, 0, 0, 1, 1, 1])
    if hashes_collide:
        monkeypatch.setattr(plain_trees, "_hashed", lambda bits: np.zeros(len(bits), dtype=np.uint64))

    leaves = distinct_leaves(values, tree, 2)

    assert leaves.code[0] == leaves.code[2] != leaves.code[1]
    assert len(leaves.values) == 5
    assert leaves.most_codes == 3
    assert np.array_equal(leaves.values[leaves.first_row[tree] + leaves.code].view(np.int64), values.view(np.int64))


def test_each_inner_node_has_one_place(trees: PlainTrees) -> None:
    order = busy_paths_first(trees)

    assert np.array_equal(np.sort(order), np.flatnonzero(trees.left != LEAF))


def test_the_busier_child_is_next_to_its_parent(trees: PlainTrees) -> None:
    place = np.full(len(trees.left), -1)
    order = busy_paths_first(trees)
    place[order] = np.arange(len(order))
    left, right = trees.left[order], trees.right[order]
    busier = np.where(trees.weight[left] >= trees.weight[right], left, right)
    inner = trees.left[busier] != LEAF

    assert np.array_equal(place[busier[inner]], place[order[inner]] + 1)


def test_a_tree_without_questions_has_no_inner_node() -> None:
    forest = RandomForestClassifier(3, min_impurity_decrease=9.0).fit(*served.wines())
    plain = read_trees([one.tree_ for one in forest.estimators_])

    assert len(busy_paths_first(plain)) == 0
    assert len(levels_of(plain)) == 0


def test_the_busiest_feature_is_the_one_that_decides() -> None:
    table, _ = served.wines()
    forest = RandomForestClassifier(5, max_features=None, random_state=0).fit(table, table[:, 6] > 5)

    busiest = read_trees([one.tree_ for one in forest.estimators_]).busiest_features(4)

    assert busiest[0] == 6


@pytest.mark.parametrize("shape", [(300, 1, 1), (300, 1, 4), (300, 7, 1), (1, 1, 1), (1, 5, 3)])
def test_sums_are_those_of_one_addition_after_the_other(shape: tuple[int, ...]) -> None:
    numbers = np.random.default_rng(0).random(shape) / 3
    expected = np.full(shape[1:], 0.1)
    for one in numbers:
        expected += one

    assert np.array_equal(sum_in_order(numbers, np.full(shape[1:], 0.1)), expected)
