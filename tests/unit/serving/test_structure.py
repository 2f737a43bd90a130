"""No model that would crash or hang the process that predicts with it gets past the structure check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import Pipeline

from tests.unit.serving import crafted
from wine_api.errors import ModelRejected
from wine_api.serving.structure import check_structure, parts_of
from wine_api.serving.unpickling import load

CAP = 64 * 1024 * 1024


def refusal(model: Any) -> str:
    """Return the reason for which *model* is refused."""
    with pytest.raises(ModelRejected) as refused:
        check_structure(model)
    assert refused.value.gate == "structure"
    return refused.value.reason


@pytest.mark.parametrize("kind", crafted.CLASSIFIERS)
def test_every_honest_classifier_passes(kind: str) -> None:
    check_structure(crafted.fitted(kind))


@pytest.mark.parametrize("kind", crafted.REGRESSORS)
def test_every_honest_regressor_passes(kind: str) -> None:
    check_structure(crafted.fitted(kind, regressor=True))


def _set(field: str, place: int, value: Any) -> Callable[[Any, dict[str, Any]], None]:
    def change(nodes: Any, state: dict[str, Any]) -> None:
        nodes[field][place] = value

    return change


def _set_value(nodes: Any, state: dict[str, Any]) -> None:
    state["values"][0, 0, 0] = np.nan


def _count_more(nodes: Any, state: dict[str, Any]) -> None:
    state["node_count"] = len(nodes) + 1000


def _count_fewer(nodes: Any, state: dict[str, Any]) -> None:
    state["node_count"] = -1


def _empty(nodes: Any, state: dict[str, Any]) -> None:
    state.update(nodes=nodes[:0], values=state["values"][:0], node_count=0)


def _share(nodes: Any, state: dict[str, Any]) -> None:
    nodes["right_child"][0] = nodes["left_child"][0]


class TestTrees:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(_set("left_child", 0, 10**12), id="child far outside"),
            pytest.param(_set("right_child", 0, -(10**9)), id="child far before"),
            pytest.param(_set("left_child", 0, 0), id="child is its own parent"),
            pytest.param(_set("left_child", 1, 0), id="child is the root"),
            pytest.param(_set("left_child", 0, -1), id="one child"),
            pytest.param(_share, id="child of two"),
            pytest.param(_set("feature", 0, 10**9), id="feature far outside"),
            pytest.param(_set("feature", 0, -2), id="negative feature"),
            pytest.param(_set("feature", 0, 11), id="feature just outside"),
            pytest.param(_set("threshold", 0, np.nan), id="threshold is not a number"),
            pytest.param(_set_value, id="value is not a number"),
            pytest.param(_count_more, id="more nodes than there are"),
            pytest.param(_count_fewer, id="fewer nodes than none"),
            pytest.param(_empty, id="no nodes"),
        ],
    )
    def test_crafted_tree_is_refused(self, change: Any, tmp_path: Path) -> None:
        path = tmp_path / "model.joblib"
        path.write_bytes(crafted.with_nodes(crafted.fitted("decision tree"), change))

        with pytest.raises(ModelRejected) as refused:
            check_structure(load(path, max_bytes=CAP))

        assert refused.value.reason in {"invalid_tree", "not_finite"}

    def test_tree_that_was_never_filled_is_refused(self) -> None:
        tree = crafted.fitted("decision tree").tree_

        assert refusal(type(tree)(tree.n_features, tree.n_classes, 1)) == "invalid_tree"

    def test_infinite_threshold_is_what_missing_values_make(self, tmp_path: Path) -> None:
        path = tmp_path / "model.joblib"
        path.write_bytes(crafted.with_nodes(crafted.fitted("decision tree"), _set("threshold", 0, np.inf)))

        check_structure(load(path, max_bytes=CAP))

    def test_tree_for_wider_rows_is_refused(self) -> None:
        wide = crafted.DecisionTreeClassifier(max_depth=2).fit(*crafted.wines(features=20))

        assert refusal(crafted.changed(wide, n_features_in_=11)) == "inconsistent"

    def test_wider_tree_in_a_forest_is_refused(self) -> None:
        wide = crafted.fitted_forest(features=20)

        assert refusal(crafted.changed(crafted.fitted("random forest"), estimators_=wide.estimators_)) == "inconsistent"

    def test_forest_without_trees_is_refused(self) -> None:
        assert refusal(crafted.changed(crafted.fitted("random forest"), estimators_=[])) == "inconsistent"

    def test_forest_of_something_else_is_refused(self) -> None:
        other = [crafted.fitted("naive bayes")]

        assert refusal(crafted.changed(crafted.fitted("random forest"), estimators_=other)) == "inconsistent"

    def test_forest_with_more_classes_than_its_trees_is_refused(self) -> None:
        model = crafted.changed(crafted.fitted("random forest"), classes_=np.array([3, 4, 5, 6]))

        assert refusal(model) == "inconsistent"


class TestBoosting:
    def test_more_trees_a_round_than_classes_would_write_outside(self) -> None:
        model = crafted.fitted("gradient boosting")
        wider = np.hstack([model.estimators_] * 3)

        assert refusal(crafted.changed(model, estimators_=wider)) == "inconsistent"

    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            pytest.param("left", 2**31, "invalid_tree", id="child far outside"),
            pytest.param("left", 0, "invalid_tree", id="child is its own parent"),
            pytest.param("feature_idx", 10**9, "invalid_tree", id="feature far outside"),
            pytest.param("num_threshold", np.nan, "not_finite", id="threshold is not a number"),
            pytest.param("value", np.inf, "not_finite", id="value is infinite"),
        ],
    )
    def test_crafted_nodes_are_refused(self, field: str, value: Any, reason: str) -> None:
        assert refusal(_with_first_node(field, value)) == reason

    def test_categories_that_do_not_exist_are_refused(self) -> None:
        model = _with_first_node("is_categorical", 1)

        assert refusal(model) == "invalid_tree"

    def test_step_that_could_drop_columns_is_refused(self) -> None:
        model = crafted.changed(crafted.fitted("hist gradient boosting"), _preprocessor=crafted.ColumnTransformer([]))

        assert refusal(model) == "unsupported_categories"

    def test_round_with_a_missing_tree_is_refused(self) -> None:
        model = crafted.fitted("hist gradient boosting")

        assert refusal(crafted.changed(model, _predictors=[model._predictors[0][:1]])) == "inconsistent"


def _with_first_node(field: str, value: Any) -> Any:
    """Return a hist gradient boosting whose first node has another *value*."""
    model = crafted.fitted("hist gradient boosting")
    first = model._predictors[0][0]
    nodes = first.nodes.copy()
    nodes[field][0] = value
    rounds = [[crafted.changed(first, nodes=nodes), *model._predictors[0][1:]], *model._predictors[1:]]
    return crafted.changed(model, _predictors=rounds)


class TestNeighbours:
    @pytest.mark.parametrize(
        ("place", "change"),
        [
            pytest.param(1, lambda order: np.full_like(order, 10**12), id="point far outside"),
            pytest.param(1, lambda order: order[:5], id="too few points"),
            pytest.param(2, lambda nodes: _nodes(nodes, "idx_end", 10**12), id="node ends far outside"),
            pytest.param(2, lambda nodes: _nodes(nodes, "is_leaf", 0), id="no leaf"),
            pytest.param(2, lambda nodes: nodes[:1], id="too few nodes"),
            pytest.param(3, lambda bounds: bounds[:, :1], id="too few bounds"),
            pytest.param(6, lambda count: 10**6, id="more nodes than there are"),
        ],
    )
    def test_crafted_search_tree_is_refused(self, place: int, change: Any) -> None:
        tree = crafted.fitted("neighbours in a ball tree")._tree
        state = list(tree.__getstate__())
        state[place] = change(state[place])
        crafted_tree = type(tree).__new__(type(tree))
        crafted_tree.__setstate__(tuple(state))

        assert refusal(crafted_tree) == "invalid_tree"

    def test_search_tree_that_was_never_filled_is_refused(self) -> None:
        kind = type(crafted.fitted("neighbours in a ball tree")._tree)

        assert refusal(kind.__new__(kind)) in {"invalid_tree", "incomplete"}

    @pytest.mark.parametrize(
        "attributes",
        [
            pytest.param({"_y": np.full(120, 10**9)}, id="class far outside"),
            pytest.param({"_y": np.zeros(3, dtype=int)}, id="too few answers"),
            pytest.param({"n_neighbors": 10**9}, id="more neighbours than there are"),
            pytest.param({"n_samples_fit_": 10**9}, id="more points than there are"),
        ],
    )
    def test_inconsistent_neighbours_are_refused(self, attributes: dict[str, Any]) -> None:
        model = crafted.fitted("neighbours without a tree")

        assert refusal(crafted.changed(model, **attributes)) == "inconsistent"


def _nodes(nodes: Any, field: str, value: Any) -> Any:
    changed = nodes.copy()
    changed[field] = value
    return changed


class TestSupportVectors:
    @pytest.mark.parametrize(
        "attributes",
        [
            pytest.param({"_n_support": np.array([10**6, 1, 1], dtype=np.int32)}, id="more than there are"),
            pytest.param({"_dual_coef_": np.zeros((2, 1))}, id="too few coefficients"),
            pytest.param({"_intercept_": np.zeros(1)}, id="too few intercepts"),
            pytest.param({"_probA": np.zeros(2)}, id="too few probabilities"),
            pytest.param({"support_": np.zeros(1, dtype=np.int32)}, id="too few indexes"),
            pytest.param({"support_vectors_": np.zeros((0, 11))}, id="none"),
            pytest.param({"n_features_in_": 5}, id="other width"),
        ],
    )
    def test_inconsistent_arrays_are_refused(self, attributes: dict[str, Any]) -> None:
        assert refusal(crafted.changed(crafted.fitted("nu svc"), **attributes)) == "inconsistent"

    def test_kernel_that_is_a_function_is_refused(self) -> None:
        assert refusal(crafted.changed(crafted.fitted("nu svc"), kernel=len)) == "unsupported_kernel"


class TestParts:
    def test_part_that_contains_itself_is_refused(self) -> None:
        pipeline = Pipeline([("model", None)])
        pipeline.steps[0] = ("model", pipeline)

        assert refusal(pipeline) == "cyclic"

    def test_parts_nested_too_deep_are_refused(self) -> None:
        model: Any = crafted.fitted("naive bayes")
        for _ in range(150):
            model = Pipeline([("model", model)])

        assert refusal(model) == "too_deep"

    def test_parts_shared_exponentially_are_refused(self) -> None:
        model: Any = DummyClassifier()
        for _ in range(30):
            model = crafted.changed(VotingClassifier([]), estimators_=[model, model])

        assert refusal(model) == "too_much_work"

    def test_parts_are_each_found_once(self) -> None:
        scaler = crafted.StandardScaler()

        parts = parts_of({"one": scaler, "other": [scaler]})

        assert sum(part is scaler for part in parts) == 1

    def test_missing_attribute_is_refused_not_raised(self) -> None:
        model = crafted.changed(crafted.fitted("random forest"), n_features_in_="eleven", estimators_=7)

        assert refusal(model) == "incomplete"
