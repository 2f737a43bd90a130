"""A model gets the fastest engine that answers as scikit-learn does, to the last bit, or scikit-learn itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from sklearn.svm import SVC

from tests.unit.serving.engines import served
from wine_api.serving.engines import choice
from wine_api.serving.engines.base import Answers
from wine_api.serving.engines.choice import choose_engine
from wine_api.serving.engines.formula import Formula, highest, softmax
from wine_api.serving.gates import VettedModel
from wine_api.serving.wine import FEATURE_COUNT

LINEAR = {"logistic regression", "logistic regression without intercept", "linear", "ridge"}
LABELS = {
    "two numbers": (4, 7),
    "two words": ("bad", "good"),
    "words": ("awful", "fair", "fine", "great"),
    "whole numbers as floats": (4.0, 5.0, 6.0, 7.0),
}


def differences(model: VettedModel) -> list[int]:
    """Return the sizes of batches for which the engine of *model* does not say exactly what scikit-learn says."""
    engine, _ = choose_engine(model, proven=True)
    scikit_learn = served.reference(model)
    rows = served.critical_wines(model)
    return [
        size
        for size in served.SIZES
        for start in (0, len(rows) - size)
        if not served.equal(
            engine.predict(rows[start : start + size]), scikit_learn.predict(rows[start : start + size])
        )
    ]


class TestExactness:
    @pytest.mark.parametrize("kind", served.CLASSIFIERS)
    def test_a_classifier_is_the_same_to_the_last_bit(self, kind: str) -> None:
        assert differences(served.classifier(kind)) == []

    @pytest.mark.parametrize("kind", served.REGRESSORS)
    def test_a_regressor_is_the_same_to_the_last_bit(self, kind: str) -> None:
        assert differences(served.regressor(kind)) == []

    @pytest.mark.parametrize("classes", LABELS.values(), ids=LABELS)
    @pytest.mark.parametrize(
        "kind",
        [
            "forest",
            "gradient boosting",
            "hist gradient boosting",
            "weighted voting",
            "stacking",
            "sigmoid calibration of scores",
            "isotonic calibration",
            "logistic regression",
        ],
    )
    def test_other_labels_are_the_same(self, kind: str, classes: tuple[Any, ...]) -> None:
        assert differences(served.classifier(kind, classes)) == []

    def test_an_exponential_loss_is_the_same(self) -> None:
        table, quality = served.wines()

        model = served.vetted(GradientBoostingClassifier(n_estimators=5, loss="exponential"), table, quality > 5)

        assert differences(model) == []

    @pytest.mark.parametrize("kind", ["scaled forest", "gradient boosting", "logistic regression"])
    def test_columns_in_another_order_are_the_same(self, kind: str) -> None:
        table, quality = served.wines()
        columns = tuple(np.random.default_rng(3).permutation(FEATURE_COUNT).tolist())
        model = served.vetted(served.CLASSIFIERS[kind], table, quality, columns)

        engine, reason = choose_engine(model)

        assert reason is None
        assert served.equal(engine.predict(table), served.reference(model).predict(table))

    def test_a_forest_that_knew_missing_values_is_the_same(self) -> None:
        table, quality = served.wines()
        holes = np.where(np.random.default_rng(0).random(table.shape) < 0.2, np.nan, table)

        assert differences(served.vetted(RandomForestClassifier(5, random_state=0), holes, quality)) == []

    def test_a_forest_that_grew_later_is_the_same(self) -> None:
        table, quality = served.wines()
        forest = RandomForestClassifier(3, warm_start=True, oob_score=False, random_state=0).fit(table, quality)
        forest.set_params(n_estimators=7).fit(table, quality)
        # More trees are announced than there are.
        forest.set_params(n_estimators=50)

        assert differences(served.as_vetted(forest)) == []

    def test_a_forest_with_weights_of_wines_is_the_same(self) -> None:
        table, quality = served.wines()
        forest = RandomForestClassifier(5, random_state=0).fit(table, quality, sample_weight=1 / (1 + table[:, 0]))

        assert differences(served.as_vetted(forest)) == []

    @pytest.mark.parametrize("kind", ["forest", "gradient boosting", "decision tree"])
    def test_a_measurement_beyond_float32_is_answered(self, kind: str) -> None:
        engine, _ = choose_engine(served.classifier(kind))

        answers = engine.predict(np.full((1, FEATURE_COUNT), 1e300))

        assert answers.labels[0] in (4, 5, 6, 7)

    def test_a_linear_model_refuses_what_it_cannot_add_up(self) -> None:
        table, _ = served.wines()
        engine, _ = choose_engine(served.vetted(LinearRegression(), table, 1000 * table.sum(axis=1)))

        with pytest.raises(ValueError, match="too far out"):
            engine.predict(np.full((1, FEATURE_COUNT), 1e308))


class TestChoice:
    @pytest.mark.parametrize("kind", served.CLASSIFIERS)
    def test_a_classifier_gets_a_fast_engine(self, kind: str) -> None:
        engine, reason = choose_engine(served.classifier(kind))

        assert (engine.name, reason) == ("linear" if kind in LINEAR else "merged_trees", None)

    @pytest.mark.parametrize("kind", served.REGRESSORS)
    def test_a_regressor_gets_a_fast_engine(self, kind: str) -> None:
        engine, reason = choose_engine(served.regressor(kind))

        assert (engine.name, reason) == ("linear" if kind in LINEAR else "merged_trees", None)

    @pytest.mark.parametrize(
        "estimator",
        [
            pytest.param(SVC(), id="support vectors"),
            pytest.param(BaggingClassifier(n_estimators=2), id="bagging"),
            pytest.param(VotingClassifier([("bayes", GaussianNB())], voting="soft"), id="an unknown member"),
            pytest.param(VotingClassifier([("forest", RandomForestClassifier(2))]), id="a vote by labels"),
            pytest.param(
                make_pipeline(QuantileTransformer(n_quantiles=9), RandomForestClassifier(2)), id="an unknown scaler"
            ),
            pytest.param(
                GradientBoostingClassifier(n_estimators=2, init=RandomForestClassifier(2)), id="a start of its own"
            ),
            pytest.param(
                HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]), id="hist gradient boosting"
            ),
        ],
    )
    def test_what_is_not_covered_gets_scikit_learn(self, estimator: Any) -> None:
        table, quality = served.wines()
        model = served.vetted(estimator, np.floor(table), quality)

        engine, reason = choose_engine(model)

        assert (engine.name, reason) == ("sklearn", "not_covered")
        assert served.equal(engine.predict(table), served.reference(model).predict(table))

    def test_the_golden_rows_of_the_card_are_part_of_the_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table, _ = served.wines()
        golden = 1000 + table[:2]
        model = served.classifier("forest")
        card: Any = SimpleNamespace(golden=SimpleNamespace(inputs=golden.tolist()))
        spoil(monkeypatch, where=lambda rows: rows.min(axis=1) > 900)

        reasons = [choose_engine(one)[1] for one in (model, with_card(model, card))]

        assert reasons == [None, "parity_differs"]


def with_card(model: VettedModel, card: Any) -> VettedModel:
    return VettedModel(model.estimator, model.columns, model.classes, model.has_probabilities, {}, card, "")


def spoil(monkeypatch: pytest.MonkeyPatch, by: float = 1e-9, where: Any = lambda rows: rows[:, 0] > 0) -> None:
    """Let the formula of every model be wrong a little where *where* is true."""
    right = choice.formula_of

    def wrong(estimator: Any) -> Formula:
        formula = right(estimator)

        def scores(rows: Any) -> Any:
            said = formula.scores(rows)
            said[where(rows), 0] += by
            return said

        return Formula(scores, formula.positions, formula.probabilities)

    monkeypatch.setattr(choice, "formula_of", wrong)


class TestFallback:
    @pytest.mark.parametrize(
        "by", [pytest.param(1e-9, id="a little"), pytest.param(9.0, id="labels"), pytest.param(np.nan, id="no number")]
    )
    def test_an_engine_that_differs_is_not_used(self, monkeypatch: pytest.MonkeyPatch, by: float) -> None:
        spoil(monkeypatch, by)

        engine, reason = choose_engine(served.classifier("forest"))

        assert (engine.name, reason) == ("sklearn", "parity_differs")

    def test_rounding_alone_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoil(monkeypatch, 1e-14)

        engine, reason = choose_engine(served.classifier("forest with mixed leaves"))

        assert (engine.name, reason) == ("merged_trees", None)

    def test_an_engine_that_is_wrong_only_on_thresholds_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = served.classifier("forest")
        thresholds = np.concatenate([tree.tree_.threshold for tree in model.estimator.estimators_])
        spoil(monkeypatch, where=lambda rows: np.isin(rows, thresholds).any(axis=1))

        engine, reason = choose_engine(model)

        assert (engine.name, reason) == ("sklearn", "parity_differs")

    def test_what_fails_while_it_is_built_gets_scikit_learn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "formula_of", lambda estimator: 1 / 0)

        engine, reason = choose_engine(served.classifier("forest"))

        assert (engine.name, reason) == ("sklearn", "build_failed")

    def test_an_engine_that_fails_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "formula_of", lambda estimator: Formula(lambda rows: 1 / 0, highest, softmax))

        engine, reason = choose_engine(served.classifier("forest"))

        assert (engine.name, reason) == ("sklearn", "build_failed")

    def test_what_was_proven_is_not_proven_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoil(monkeypatch)

        engine, reason = choose_engine(served.classifier("forest"), proven=True)

        assert (engine.name, reason) == ("merged_trees", None)


def test_keeps_nothing_of_a_forest_but_its_own_copy() -> None:
    table, quality = served.wines()
    model = served.vetted(RandomForestClassifier(2, random_state=0), table, quality)
    engine, _ = choose_engine(model)
    expected = engine.predict(table)

    for tree in model.estimator.estimators_:
        tree.tree_.value[:] = 0
    model.estimator.estimators_.clear()

    assert served.equal(engine.predict(table), expected)


def test_answers_hold_what_the_wire_needs() -> None:
    engine, _ = choose_engine(served.classifier("forest", ("awful", "fair", "fine", "great")))

    answers = engine.predict(served.wines()[0][:3])

    assert isinstance(answers, Answers)
    assert [type(label) for label in answers.labels] == [str] * 3
    assert np.shape(answers.confidences) == (3,)
    assert np.shape(answers.probabilities) == (3, 4)


def test_linear_models_of_the_usual_solvers_are_covered() -> None:
    table, quality = served.wines()

    reasons = [
        choose_engine(served.vetted(LogisticRegression(solver=solver, max_iter=5000), table, quality > 5))[1]
        for solver in ("lbfgs", "liblinear", "newton-cg")
    ]

    assert reasons == [None] * 3
