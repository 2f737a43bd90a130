"""Writes small models with the scikit-learn that runs it, and what that version answers with them.

    for version in 1.3.2 1.4.2 1.6.1 1.8.0; do
        python3.11 -m venv /tmp/sklearn-$version
        /tmp/sklearn-$version/bin/pip install scikit-learn==$version  # with "numpy<2" for 1.3.2 and 1.4.2
        /tmp/sklearn-$version/bin/python tests/data/artifacts/make.py
    done

The answers are in expected.json of each version's folder: the rows, and for each model its labels and probabilities.
It imports nothing of this project, which those versions cannot run.
"""

import json
from pathlib import Path

import joblib
import numpy as np
import sklearn
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

ROWS = 80
SHOWN_ROWS = 12
FOLDER = Path(__file__).parent / sklearn.__version__


def wines():
    """Return made-up wines and their qualities, the same with every numpy."""
    random = np.random.RandomState(7)
    features = np.round(np.abs(random.normal(5, 2, size=(ROWS, 11))), 2)
    return features, np.clip(np.round(features[:, 10] / 2 + features[:, 1] / 4), 3, 5).astype(int)


def models():
    """Return the kinds of models that people train on wines."""
    return {
        "forest": RandomForestClassifier(n_estimators=3, max_depth=3, random_state=0),
        "extra_trees": ExtraTreesClassifier(n_estimators=3, max_depth=3, random_state=0),
        "tree": DecisionTreeClassifier(max_depth=3, random_state=0),
        "forest_regressor": RandomForestRegressor(n_estimators=3, max_depth=3, random_state=0),
        "gradient_boosting": GradientBoostingClassifier(n_estimators=2, max_depth=2, random_state=0),
        "hist_gradient_boosting": HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=4, random_state=0),
        "imputer_logistic": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
        "scaler_logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "scaler_forest": make_pipeline(
            StandardScaler(), RandomForestClassifier(n_estimators=3, max_depth=3, random_state=0)
        ),
        "scaler_svc": make_pipeline(StandardScaler(), SVC()),
        "neighbours": KNeighborsClassifier(n_neighbors=3),
    }


def main():
    """Write the models and expected.json into the folder of this version."""
    features, quality = wines()
    rows = features[:SHOWN_ROWS]
    FOLDER.mkdir(exist_ok=True)
    expected = {"rows": rows.tolist(), "models": {}}
    for kind, model in models().items():
        model.fit(features, quality + 0.5 if kind.endswith("regressor") else quality)
        joblib.dump(model, FOLDER / f"{kind}.joblib", compress=3)
        expected["models"][kind] = {
            "predictions": model.predict(rows).tolist(),
            "probabilities": model.predict_proba(rows).tolist() if hasattr(model, "predict_proba") else None,
        }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
