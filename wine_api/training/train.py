"""The estimator, and how it is fitted and written."""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
from sklearn.ensemble import RandomForestClassifier

from wine_api.training.data import Dataset

# Fully grown trees split by entropy are a little better than scikit-learn's default (gini) and a little smaller; what
# else was measured is in docs/training.md.
_TREES = 100
_CRITERION = "entropy"
# zlib would make the file almost twice as big, and both are read in a fraction of a second.
_COMPRESSION = ("xz", 6)


def new_estimator(seed: int) -> RandomForestClassifier:
    """Return the estimator, not fitted; the same *seed* and data always grow the same trees."""
    # n_jobs stays None: it would be kept in the artifact, and start threads in whatever serves it.
    return RandomForestClassifier(n_estimators=_TREES, criterion=_CRITERION, random_state=seed)


def fit(dataset: Dataset, seed: int) -> RandomForestClassifier:
    """Fit the estimator on all wines of *dataset*.

    It is fitted on a plain array in the order of FEATURES, so the model carries no column names of its own.
    """
    return new_estimator(seed).fit(dataset.wines, dataset.qualities)


def write_artifact(model: RandomForestClassifier, path: Path) -> None:
    """Write *model* to *path*; equal models make equal bytes."""
    _intern_attribute_names(model)
    joblib.dump(model, path, compress=_COMPRESSION)


def _intern_attribute_names(model: RandomForestClassifier) -> None:
    """Make each attribute name one string in the whole *model*.

    A pickle tells one string from two equal ones. In a process that has loaded a model before it fits its first, the
    names of attributes are the strings that came out of that file, and the same model would make other bytes.
    """
    for estimator in (model, model.estimator, model.estimator_, *model.estimators_):
        estimator.__dict__ = {sys.intern(name): value for name, value in vars(estimator).items()}
