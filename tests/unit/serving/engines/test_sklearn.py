"""scikit-learn itself, as an engine: its own labels, with the probability of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tests.unit.serving.engines import served
from wine_api.serving.gates import VettedModel

MOST_PROBABLE = {
    "forest": RandomForestClassifier(3, random_state=0),
    "tree": DecisionTreeClassifier(max_depth=2, random_state=0),
    "bagging": BaggingClassifier(n_estimators=3, random_state=0),
    "voting": VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=2))], voting="soft"),
    "calibration": CalibratedClassifierCV(GaussianNB(), cv=2),
    "pipeline": make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)),
}
OTHERS = {"bayes": GaussianNB(), "logistic": make_pipeline(StandardScaler(), LogisticRegression())}


def model(estimator: Any) -> VettedModel:
    return served.vetted(estimator, *served.wines())


@pytest.mark.parametrize("kind", [*MOST_PROBABLE, *OTHERS])
def test_labels_are_those_that_the_model_predicts(kind: str) -> None:
    vetted = model({**MOST_PROBABLE, **OTHERS}[kind])
    rows = served.critical_wines(vetted)

    answers = served.reference(vetted).predict(rows)

    assert answers.labels == vetted.estimator.predict(rows).tolist()
    assert np.array_equal(answers.probabilities, vetted.estimator.predict_proba(rows))


@pytest.mark.parametrize("kind", MOST_PROBABLE)
def test_does_not_compute_twice_what_predict_computes_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vetted = model(MOST_PROBABLE[kind])
    monkeypatch.setattr(type(vetted.estimator), "predict", lambda *arguments: 1 / 0)

    answers = served.reference(vetted).predict(served.wines()[0][:2])

    assert len(answers.labels) == 2


def test_the_confidence_is_the_probability_of_the_label() -> None:
    vetted = model(RandomForestClassifier(3, random_state=0))
    rows = served.wines()[0][:5]

    answers = served.reference(vetted).predict(rows)

    assert np.array_equal(answers.confidences, vetted.estimator.predict_proba(rows).max(axis=1))


def test_a_model_without_probabilities_has_no_confidence() -> None:
    answers = served.reference(model(LinearSVC())).predict(served.wines()[0][:5])

    assert (answers.confidences, answers.probabilities) == (None, None)
    assert len(answers.labels) == 5


def test_columns_are_brought_into_the_order_of_the_model() -> None:
    table, quality = served.wines()
    vetted = served.vetted(RandomForestClassifier(3, random_state=0), table, quality, columns=(10, *range(10)))

    answers = served.reference(vetted).predict(table)

    assert answers.labels == vetted.estimator.predict(np.roll(table, 1, axis=1)).tolist()
