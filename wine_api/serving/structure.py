"""Checks that no part of a model can crash or hang the process that predicts with it.

What scikit-learn runs in C follows indexes without looking: a child node of 10**12 is a segmentation fault, a child
that is its own parent never returns. Whatever is followed that way is checked here, by type, in the whole model:
decision trees, the nodes of hist gradient boosting, search trees of nearest neighbours, support vectors, and that the
parts of an ensemble fit the whole. Models whose parts contain each other, or each other very often, are refused too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from wine_api.errors import ModelRejected

GATE = "structure"
MAX_DEPTH = 200
# How often parts are visited when what is shared is counted each time: a small file can share exponentially.
MAX_VISITS = 20_000_000

Array = npt.NDArray[Any]
Check = Callable[[Any], None]

_LEAF = -1
_PLAIN = (str, bytes, int, float, bool, type(None), np.generic, type, np.dtype)


def check_structure(model: object) -> None:
    """Raise `ModelRejected` unless every part of *model* can be evaluated, in bounded time."""
    for part in parts_of(model):
        fitted_by, check = _check_of(type(part)) or ("", None)  # type: ignore[arg-type]  # types are hashable
        if check is not None and (not fitted_by or fitted_by in vars(part)):
            _run(check, part)


def _run(check: Check, part: Any) -> None:
    try:
        check(part)
    except ModelRejected:
        raise
    # An attribute that is missing or of another type: scikit-learn would fail on it later, in the middle of a request.
    except Exception as error:
        raise _refused("incomplete", f"A {type(part).__name__} of the model is not complete.") from error


def _refused(reason: str, detail: str) -> ModelRejected:
    return ModelRejected(GATE, reason, detail)


# Walking --------------------------------------------------------------------------------------------------------------


def parts_of(model: object) -> list[Any]:
    """Return every object in *model* once, those inside before those around them.

    Raises `ModelRejected` when they contain each other, or are nested too deep or too often to be evaluated.
    """
    parts: list[Any] = []
    visits: dict[int, int] = {}
    open_ids: set[int] = set()
    waiting: list[tuple[Any, list[Any] | None]] = [(model, None)]
    while waiting:
        part, children = waiting.pop()
        if children is not None:
            open_ids.discard(id(part))
            parts.append(part)
            visits[id(part)] = _counted(1 + sum(visits[id(child)] for child in children))
        elif id(part) in open_ids:
            raise _refused("cyclic", "A part of the model contains itself.")
        elif id(part) not in visits:
            if len(open_ids) >= MAX_DEPTH:
                raise _refused("too_deep", "The parts of the model are nested too deep.")
            open_ids.add(id(part))
            children = _children_of(part)
            waiting.append((part, children))
            waiting.extend((child, None) for child in children)
    return parts


def _counted(visits: int) -> int:
    if visits > MAX_VISITS:
        raise _refused("too_much_work", "The parts of the model are shared too often to be evaluated.")
    return visits


def _children_of(part: Any) -> list[Any]:
    children: Iterable[Any] = ()
    if isinstance(part, dict):
        children = [*part.values(), *getattr(part, "__dict__", {}).values()]
    elif isinstance(part, list | tuple | set | frozenset):
        children = part
    elif isinstance(part, np.ndarray):
        children = part.ravel().tolist() if part.dtype.hasobject else ()
    else:
        children = getattr(part, "__dict__", {}).values()
    return [child for child in children if not isinstance(child, _PLAIN)]


# Decision trees -------------------------------------------------------------------------------------------------------


def _check_tree(tree: Any) -> None:
    """Check a `sklearn.tree._tree.Tree`: every row comes to a leaf that exists, by features that exist."""
    if tree.node_count < 1:
        raise _refused("invalid_tree", "A tree of the model is empty.")
    state = tree.__getstate__()
    nodes, values = state["nodes"], state["values"]
    left, right = nodes["left_child"], nodes["right_child"]
    inner = np.flatnonzero(left != _LEAF)
    if np.any((right != _LEAF) != (left != _LEAF)):
        raise _refused("invalid_tree", "A node of the model has one child.")
    _check_children(inner, left[inner], right[inner], len(nodes))
    _check_features(nodes["feature"][inner], tree.n_features)
    if np.isnan(nodes["threshold"][inner]).any() or not np.isfinite(values).all():
        raise _refused("not_finite", "A tree of the model holds values that are not finite.")


def _check_children(inner: Array, left: Array, right: Array, count: int) -> None:
    """Check that the nodes are one tree: each but the root is the child of one node, which comes before it."""
    children = np.concatenate([left, right]).astype(np.int64)
    if np.any(children <= np.concatenate([inner, inner])) or np.any(children >= count):
        raise _refused("invalid_tree", "A node of the model has a child that does not exist, or comes before it.")
    if len(children) != count - 1 or len(np.unique(children)) != count - 1:
        raise _refused("invalid_tree", "A node of the model is not the child of exactly one other.")


def _check_features(features: Array, count: int) -> None:
    if np.any((features < 0) | (features >= count)):
        raise _refused("invalid_tree", "A node of the model asks for a feature that does not exist.")


def _check_decision_tree(estimator: Any) -> None:
    _demand_tree(estimator, estimator.n_features_in_)
    if estimator.n_outputs_ != 1:
        raise _refused("inconsistent", "A tree of the model predicts more than one thing.")
    classes = len(estimator.classes_) if hasattr(estimator, "classes_") else 1
    if int(estimator.tree_.max_n_classes) != classes:
        raise _refused("inconsistent", "A tree of the model has another number of classes than it says.")


def _demand_tree(estimator: Any, features: int) -> None:
    # The ensembles call this tree's C code without asking the estimator around it whether the row is wide enough.
    if type_name(estimator.tree_) != "sklearn.tree._tree.Tree":
        raise _refused("inconsistent", "A tree of the model is not a tree.")
    if estimator.tree_.n_features != features or estimator.tree_.n_outputs != 1:
        raise _refused("inconsistent", "A tree of the model has another number of features than the model.")


def _check_forest(forest: Any) -> None:
    _demand_some(forest.estimators_)
    classes = len(forest.classes_) if hasattr(forest, "classes_") else 1
    for estimator in forest.estimators_:
        _demand_kind(estimator, "sklearn.tree._classes.BaseDecisionTree")
        _demand_tree(estimator, forest.n_features_in_)
        if int(estimator.tree_.max_n_classes) != classes:
            raise _refused("inconsistent", "A tree of the forest has another number of classes than the forest.")


def _check_gradient_boosting(boosting: Any) -> None:
    """Check that there are as many trees a round as columns that they write to, without asking, in C."""
    width = 1 if not hasattr(boosting, "classes_") or len(boosting.classes_) == 2 else len(boosting.classes_)
    trees = boosting.estimators_
    if not isinstance(trees, np.ndarray) or trees.ndim != 2 or trees.shape[1] != width or not trees.size:
        raise _refused("inconsistent", "A gradient boosting does not have as many trees a round as classes.")
    if boosting.n_trees_per_iteration_ != width:
        raise _refused("inconsistent", "A gradient boosting does not have as many trees a round as it says.")
    for estimator in trees.ravel().tolist():
        _demand_kind(estimator, "sklearn.tree._classes.DecisionTreeRegressor")
        _demand_tree(estimator, boosting.n_features_in_)


# Hist gradient boosting -----------------------------------------------------------------------------------------------


def _check_predictor(predictor: Any) -> None:
    """Check the nodes of a `TreePredictor`, whose bitsets of categories are looked up by index too."""
    nodes = predictor.nodes
    if type(nodes) is not np.ndarray or nodes.ndim != 1 or not len(nodes):
        raise _refused("invalid_tree", "A tree of the model has no nodes.")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _check_children(inner, nodes["left"][inner], nodes["right"][inner], len(nodes))
    if np.isnan(nodes["num_threshold"][inner]).any() or not np.isfinite(nodes["value"]).all():
        raise _refused("not_finite", "A tree of the model holds values that are not finite.")
    bitsets = predictor.raw_left_cat_bitsets
    if bitsets.ndim != 2 or bitsets.shape[1] != 8 or bitsets.dtype != np.uint32:
        raise _refused("invalid_tree", "A tree of the model has unusual sets of categories.")
    categorical = inner[nodes["is_categorical"][inner] != 0]
    if np.any(nodes["bitset_idx"][categorical] >= len(bitsets)):
        raise _refused("invalid_tree", "A node of the model asks for a set of categories that does not exist.")


def _check_hist_gradient_boosting(boosting: Any) -> None:
    features = boosting.n_features_in_
    rounds = boosting._predictors
    _demand_some(rounds)
    width = 1 if not hasattr(boosting, "classes_") or len(boosting.classes_) == 2 else len(boosting.classes_)
    if boosting.n_trees_per_iteration_ != width or any(len(trees) != width for trees in rounds):
        raise _refused("inconsistent", "A gradient boosting does not have as many trees a round as classes.")
    # It may hand on fewer columns than came in. scikit-learn makes one only for categories, which wines do not have.
    if vars(boosting).get("_preprocessor") is not None:
        raise _refused("unsupported_categories", "A gradient boosting of the model was trained on categories.")
    # One entry a feature: it is how the C code finds the categories that were known in training.
    if np.shape(boosting._bin_mapper.is_categorical_) != (features,):
        raise _refused("inconsistent", "A gradient boosting has bins of another number of features.")
    for predictor in (predictor for trees in rounds for predictor in trees):
        _demand_kind(predictor, "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
        nodes = predictor.nodes
        _check_features(nodes["feature_idx"][nodes["is_leaf"] == 0], features)


# Nearest neighbours ---------------------------------------------------------------------------------------------------


def _check_search_tree(tree: Any) -> None:
    """Check a KD tree or ball tree: its nodes cover its points, and each has its two children or is a leaf."""
    data, order, nodes, bounds, _, levels, count, *_, metric, weights = tree.__getstate__()
    points, features = data.shape
    if count != len(nodes) or count != 2**levels - 1 or bounds.shape[1:] != (count, features) or count < 1:
        raise _refused("invalid_tree", "A search tree of the model does not have as many nodes as it says.")
    if bounds.shape[0] != (2 if type(tree).__name__ == "KDTree" else 1):
        raise _refused("invalid_tree", "A search tree of the model has bounds of another kind of tree.")
    if len(order) != points or not np.array_equal(np.sort(order), np.arange(points)):
        raise _refused("invalid_tree", "A search tree of the model does not hold each of its points once.")
    if np.any((nodes["is_leaf"] != 0) != (np.arange(count) >= count // 2)):
        raise _refused("invalid_tree", "A search tree of the model has leaves where it should have none.")
    start, end = nodes["idx_start"], nodes["idx_end"]
    if np.any((start < 0) | (start > end) | (end > points)) or (start[0], end[0]) != (0, points):
        raise _refused("invalid_tree", "A search tree of the model asks for points that do not exist.")
    _check_metric(metric, features)
    if weights is not None and np.shape(weights) != (points,):
        raise _refused("invalid_tree", "A search tree of the model has weights of other points.")


def _check_metric(metric: Any, features: int) -> None:
    weights = metric.__getstate__()[1]
    if type(metric).__name__ == "MinkowskiDistance64" and len(weights) not in (0, features):
        raise _refused("inconsistent", "A metric of the model has another number of weights than there are features.")


def _check_neighbours(estimator: Any) -> None:
    points, features = estimator._fit_X.shape
    if estimator.n_samples_fit_ != points or features != estimator.n_features_in_:
        raise _refused("inconsistent", "The neighbours of the model are not as many as it says.")
    if not 1 <= estimator.n_neighbors <= points or not np.isfinite(estimator._fit_X).all():
        raise _refused("inconsistent", "The model asks for more neighbours than it has, or has some that are nowhere.")
    if estimator._tree is not None and estimator._tree.get_arrays()[0].shape != (points, features):
        raise _refused("inconsistent", "The search tree of the model holds other points than the model.")
    if len(estimator._y) != points:
        raise _refused("inconsistent", "The neighbours of the model do not each have an answer.")
    if hasattr(estimator, "classes_") and np.any((estimator._y < 0) | (estimator._y >= len(estimator.classes_))):
        raise _refused("inconsistent", "A neighbour in the model belongs to a class that does not exist.")


# Support vectors ------------------------------------------------------------------------------------------------------


def _check_support_vectors(machine: Any) -> None:
    """Check the arrays that libsvm gets as bare pointers: each is as long as the others make it read."""
    vectors, support = machine.support_vectors_, machine._n_support
    if machine._sparse or machine.kernel not in ("linear", "poly", "rbf", "sigmoid"):
        raise _refused("unsupported_kernel", "A support vector machine of the model is sparse or has its own kernel.")
    classes = len(machine.classes_) if hasattr(machine, "classes_") else 2
    pairs = classes * (classes - 1) // 2
    if vectors.ndim != 2 or vectors.shape[1] != machine.n_features_in_ or not len(vectors):
        raise _refused("inconsistent", "The support vectors of the model have another number of features.")
    if np.shape(support) != (classes,) or np.any(support < 0) or _supported(machine, support) != len(vectors):
        raise _refused("inconsistent", "The support vectors of the model do not add up.")
    if machine._dual_coef_.shape != (classes - 1, len(vectors)) or np.shape(machine.support_) != (len(vectors),):
        raise _refused("inconsistent", "The support vectors of the model do not each have their coefficients.")
    if np.shape(machine._intercept_) != (pairs,):
        raise _refused("inconsistent", "The model does not have one intercept for each two classes.")
    if any(np.shape(array) not in ((0,), (pairs,)) for array in (machine._probA, machine._probB)):
        raise _refused("inconsistent", "The model does not have its probabilities for each two classes.")
    if np.shape(machine._probA) != np.shape(machine._probB):
        raise _refused("inconsistent", "The model does not have its probabilities for each two classes.")


def _supported(machine: Any, support: Array) -> int:
    # A regressor has two "classes", of which libsvm fills the first.
    return int(support.sum()) if hasattr(machine, "classes_") else int(support[0])


# Ensembles of anything ------------------------------------------------------------------------------------------------


def _check_one_vs_rest(estimator: Any) -> None:
    count = len(estimator.classes_)
    if len(estimator.estimators_) != (1 if count == 2 else count):
        raise _refused("inconsistent", "The model does not have one estimator for each class.")


def _check_one_vs_one(estimator: Any) -> None:
    count = len(estimator.classes_)
    if len(estimator.estimators_) != count * (count - 1) // 2:
        raise _refused("inconsistent", "The model does not have one estimator for each two classes.")


def _check_bagging(bagging: Any) -> None:
    _demand_some(bagging.estimators_)
    if len(bagging.estimators_) != len(bagging.estimators_features_):
        raise _refused("inconsistent", "The model does not say which features each of its estimators takes.")


def _demand_some(parts: Any) -> None:
    if len(parts) < 1:
        raise _refused("inconsistent", "An ensemble of the model is empty.")


def _demand_kind(part: Any, name: str) -> None:
    if name not in _names_of(type(part)):  # type: ignore[arg-type]  # types are hashable
        raise _refused("inconsistent", "An ensemble of the model holds something that does not belong into it.")


# By name, so that nothing of scikit-learn is imported that the model does not use. The attribute is what fitting adds:
# models keep the estimators that they were made from, and those that are not fitted refuse to predict by themselves.
_CHECKS: Mapping[str, tuple[str, Check]] = MappingProxyType(
    {
        "sklearn.tree._tree.Tree": ("", _check_tree),
        "sklearn.tree._classes.BaseDecisionTree": ("tree_", _check_decision_tree),
        "sklearn.ensemble._forest.BaseForest": ("estimators_", _check_forest),
        "sklearn.ensemble._gb.BaseGradientBoosting": ("estimators_", _check_gradient_boosting),
        "sklearn.ensemble._bagging.BaseBagging": ("estimators_", _check_bagging),
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": ("", _check_predictor),
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": (
            "_predictors",
            _check_hist_gradient_boosting,
        ),
        "sklearn.neighbors._kd_tree.KDTree": ("", _check_search_tree),
        "sklearn.neighbors._ball_tree.BallTree": ("", _check_search_tree),
        "sklearn.neighbors._classification.KNeighborsClassifier": ("_fit_X", _check_neighbours),
        "sklearn.neighbors._regression.KNeighborsRegressor": ("_fit_X", _check_neighbours),
        "sklearn.svm._base.BaseLibSVM": ("support_vectors_", _check_support_vectors),
        "sklearn.multiclass.OneVsRestClassifier": ("estimators_", _check_one_vs_rest),
        "sklearn.multiclass.OneVsOneClassifier": ("estimators_", _check_one_vs_one),
    }
)


def type_name(thing: object) -> str:
    """Return the full name of the type of *thing*."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


@functools.cache
def _names_of(kind: type) -> frozenset[str]:
    return frozenset(f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)


@functools.cache
def _check_of(kind: type) -> tuple[str, Check] | None:
    return next((entry for name, entry in _CHECKS.items() if name in _names_of(kind)), None)
