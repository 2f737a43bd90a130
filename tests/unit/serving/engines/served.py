"""Models as the gates let them through, and engines that can be compared with scikit-learn on them."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from wine_api.serving.engines.base import Answers
from wine_api.serving.engines.sklearn import SklearnEngine
from wine_api.serving.engines.threshold_rows import threshold_rows
from wine_api.serving.gates import VettedModel
from wine_api.serving.shape import classes_of, make_servable
from wine_api.serving.wine import Matrix

# Every way to compute has some size of its own: one row, a few, several calls, sorted.
SIZES = (1, 2, 3, 4, 12, 13, 48, 49, 127, 130, 600)


def wines(rows: int = 400) -> tuple[Matrix, Any]:
    """Return made-up wines of four qualities, of which some have the same measurements and another quality."""
    random = np.random.default_rng(5)
    table = np.abs(random.normal(5, 2, size=(rows, 11))).round(1)
    table[1::20] = table[::20]
    quality = np.clip((table[:, 0] + table[:, 3] - table[:, 7]).round(), 4, 7).astype(np.int64)
    quality[1::20] = 4
    return table, quality


def _forest(**settings: Any) -> Any:
    return RandomForestClassifier(**{"n_estimators": 9, "random_state": 0, **settings})


def _members() -> list[tuple[str, Any]]:
    return [("forest", _forest()), ("boosting", _boosting()), ("logistic", _scaled(LogisticRegression()))]


def _boosting(**settings: Any) -> Any:
    return GradientBoostingClassifier(**{"n_estimators": 4, "random_state": 0, **settings})


def _hist(**settings: Any) -> Any:
    return HistGradientBoostingClassifier(**{"max_iter": 4, "random_state": 0, **settings})


def _scaled(model: Any, scaler: Any = None) -> Any:
    return make_pipeline(scaler or StandardScaler(), model)


CLASSIFIERS: dict[str, Any] = {
    "forest": _forest(),
    "forest of one tree": _forest(n_estimators=1),
    "forest of many small trees": _forest(n_estimators=60, max_depth=2),
    "forest with mixed leaves": _forest(min_samples_leaf=7),
    "forest with weights": _forest(class_weight={4: 1.0, 5: 0.1, 6: 3.0, 7: 1 / 3}),
    "forest of small trees": _forest(max_leaf_nodes=40),
    "forest without splits": _forest(min_samples_split=1.0, bootstrap=False, max_depth=1, min_impurity_decrease=1.0),
    "extra trees": ExtraTreesClassifier(9, random_state=0),
    "decision tree": DecisionTreeClassifier(random_state=0),
    "extra tree": ExtraTreeClassifier(random_state=0),
    "gradient boosting": _boosting(),
    "deep gradient boosting": _boosting(max_depth=None, min_samples_leaf=1),
    "gradient boosting from zero": _boosting(init="zero"),
    "gradient boosting from the most frequent": _boosting(init=DummyClassifier(strategy="most_frequent")),
    "gradient boosting of samples": _boosting(subsample=0.5, n_iter_no_change=2),
    "gradient boosting of many rounds": _boosting(n_estimators=60, max_depth=1),
    "hist gradient boosting": _hist(),
    "hist gradient boosting of many rounds": _hist(max_iter=60, max_leaf_nodes=3),
    "hist gradient boosting of large trees": _hist(max_leaf_nodes=None, min_samples_leaf=1),
    "voting": VotingClassifier(_members(), voting="soft"),
    "weighted voting": VotingClassifier(_members(), voting="soft", weights=[0.1, 2, 1 / 3]),
    "stacking": StackingClassifier(_members(), _forest(), cv=2),
    "stacking with the wines": StackingClassifier(
        _members(), LogisticRegression(max_iter=2000), cv=2, passthrough=True
    ),
    "sigmoid calibration": CalibratedClassifierCV(_forest(), cv=2),
    "sigmoid calibration of scores": CalibratedClassifierCV(_boosting(), cv=2),
    "isotonic calibration": CalibratedClassifierCV(_forest(), cv=2, method="isotonic"),
    "grid search": GridSearchCV(_forest(), {"max_depth": [2, None]}, cv=2),
    "scaled forest": _scaled(_forest()),
    "centered forest": _scaled(_forest(), StandardScaler(with_std=False)),
    "divided forest": _scaled(_forest(), StandardScaler(with_mean=False)),
    "untouched forest": _scaled(_forest(), StandardScaler(with_mean=False, with_std=False)),
    "forest between bounds": _scaled(_forest(), MinMaxScaler((-1, 2), clip=True)),
    "robust forest": _scaled(_forest(), RobustScaler()),
    "robust boosting": _scaled(_boosting(), RobustScaler(with_centering=False)),
    "scaled hist gradient boosting": _scaled(_hist(), MinMaxScaler()),
    "twice scaled forest": Pipeline(
        [("none", "passthrough"), ("first", RobustScaler()), ("second", MinMaxScaler()), ("model", _forest())]
    ),
    "nested pipelines": _scaled(_scaled(_forest(), RobustScaler())),
    "logistic regression": _scaled(LogisticRegression()),
    "logistic regression without intercept": LogisticRegression(fit_intercept=False, max_iter=5000),
}
REGRESSORS: dict[str, Any] = {
    "hist gradient boosting with constraints": HistGradientBoostingRegressor(
        max_iter=9, monotonic_cst=[1, -1, *[0] * 9]
    ),
    "hist gradient boosting of large trees": HistGradientBoostingRegressor(
        max_iter=9, max_leaf_nodes=None, min_samples_leaf=1
    ),
    "forest": RandomForestRegressor(9, random_state=0),
    "extra trees": ExtraTreesRegressor(9, min_samples_leaf=3, random_state=0),
    "decision tree": DecisionTreeRegressor(random_state=0),
    "gradient boosting": GradientBoostingRegressor(n_estimators=9, random_state=0),
    "deep gradient boosting": GradientBoostingRegressor(n_estimators=9, max_depth=8, loss="huber", random_state=0),
    "hist gradient boosting": HistGradientBoostingRegressor(max_iter=9, random_state=0),
    "hist gradient boosting of counts": HistGradientBoostingRegressor(max_iter=9, loss="poisson", random_state=0),
    "linear": LinearRegression(),
    "ridge": _scaled(Ridge()),
    "voting": VotingRegressor([("tree", DecisionTreeRegressor()), ("ridge", Ridge())], weights=[1, 3]),
    "stacking": StackingRegressor([("tree", DecisionTreeRegressor()), ("ridge", Ridge())], Ridge(), cv=2),
}


@functools.cache
def classifier(kind: str, classes: tuple[Any, ...] = (4, 5, 6, 7)) -> VettedModel:
    """Return the classifier of that *kind*, trained to tell *classes*, of which there may be fewer than four."""
    table, quality = wines()
    labels = np.asarray(classes)[(quality - 4) * len(classes) // 4]
    return vetted(CLASSIFIERS[kind], table, labels)


@functools.cache
def regressor(kind: str) -> VettedModel:
    """Return the regressor of that *kind*."""
    table, quality = wines()
    return vetted(REGRESSORS[kind], table, quality + table[:, 5] / 7)


def vetted(estimator: Any, table: Any, labels: Any, columns: tuple[int, ...] | None = None) -> VettedModel:
    """Return *estimator*, fitted, as it is after the gates; *columns* are those that it takes, in its order."""
    from sklearn.base import clone

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = clone(estimator).fit(table if columns is None else table[:, columns], labels)
    return as_vetted(model, columns)


def as_vetted(model: Any, columns: tuple[int, ...] | None = None) -> VettedModel:
    """Return *model*, which is fitted, as it is after the gates."""
    make_servable(model)
    return VettedModel(model, columns, classes_of(model), hasattr(model, "predict_proba"), {}, None, "")


def reference(model: VettedModel) -> SklearnEngine:
    """Return scikit-learn itself as the engine of *model*."""
    return SklearnEngine(
        model.estimator, columns=model.columns, classes=model.classes, probabilities=model.has_probabilities
    )


def critical_wines(model: VettedModel) -> Matrix:
    """Return wines on the thresholds of *model*, which takes the published order, and others."""
    table, _ = wines()
    shuffled = np.concatenate([threshold_rows(model.estimator, table, 2000), table + 0.05])
    np.random.default_rng(1).shuffle(shuffled)
    return shuffled


def equal(one: Answers, other: Answers) -> bool:
    """Whether two answers are the same to the last bit."""
    return (
        one.labels == other.labels
        and _same_bits(one.confidences, other.confidences)
        and _same_bits(one.probabilities, other.probabilities)
        and _same_bits(one.positions, other.positions)
    )


def _same_bits(one: Any, other: Any) -> bool:
    return one is other is None or np.array_equal(one, other)
