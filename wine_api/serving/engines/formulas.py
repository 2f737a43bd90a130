"""Which formula a model has: the index of all that is computed here instead of by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from wine_api.serving.engines import combined, linear, tree_models
from wine_api.serving.engines.formula import Formula, NotCovered
from wine_api.serving.structure import type_name


def formula_of(estimator: Any) -> Formula:
    """Return the formula of *estimator*, which was vetted, or raise `NotCovered`."""
    name = type_name(estimator)
    if name in _ALONE:
        return _ALONE[name](estimator)
    if name in _COMBINED:
        return _COMBINED[name](estimator, formula_of)
    raise NotCovered(type(estimator).__name__)


# By name, so that nothing of scikit-learn is imported that the model does not use; and by the exact type, as a subclass
# may compute something else.
_ALONE: MappingProxyType[str, Callable[[Any], Formula]] = MappingProxyType(
    {
        "sklearn.tree._classes.DecisionTreeClassifier": tree_models.tree,
        "sklearn.tree._classes.DecisionTreeRegressor": tree_models.tree,
        "sklearn.tree._classes.ExtraTreeClassifier": tree_models.tree,
        "sklearn.tree._classes.ExtraTreeRegressor": tree_models.tree,
        "sklearn.ensemble._forest.ExtraTreesClassifier": tree_models.forest,
        "sklearn.ensemble._forest.ExtraTreesRegressor": tree_models.forest,
        "sklearn.ensemble._forest.RandomForestClassifier": tree_models.forest,
        "sklearn.ensemble._forest.RandomForestRegressor": tree_models.forest,
        "sklearn.ensemble._gb.GradientBoostingClassifier": tree_models.gradient_boosting,
        "sklearn.ensemble._gb.GradientBoostingRegressor": tree_models.gradient_boosting,
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": (
            tree_models.hist_gradient_boosting
        ),
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor": (
            tree_models.hist_gradient_boosting
        ),
        "sklearn.linear_model._logistic.LogisticRegression": linear.logistic_regression,
        "sklearn.linear_model._logistic.LogisticRegressionCV": linear.logistic_regression,
        "sklearn.linear_model._base.LinearRegression": linear.linear_regression,
        "sklearn.linear_model._ridge.Ridge": linear.linear_regression,
        "sklearn.linear_model._ridge.RidgeCV": linear.linear_regression,
        "sklearn.linear_model._coordinate_descent.ElasticNet": linear.linear_regression,
        "sklearn.linear_model._coordinate_descent.Lasso": linear.linear_regression,
    }
)
_COMBINED: MappingProxyType[str, Callable[[Any, combined.FormulaOf], Formula]] = MappingProxyType(
    {
        "sklearn.pipeline.Pipeline": combined.pipeline,
        "sklearn.model_selection._search.GridSearchCV": combined.search,
        "sklearn.model_selection._search.RandomizedSearchCV": combined.search,
        "sklearn.ensemble._voting.VotingClassifier": combined.voting_classifier,
        "sklearn.ensemble._voting.VotingRegressor": combined.voting_regressor,
        "sklearn.ensemble._stacking.StackingClassifier": combined.stacking,
        "sklearn.ensemble._stacking.StackingRegressor": combined.stacking,
        "sklearn.calibration.CalibratedClassifierCV": combined.calibrated,
    }
)
