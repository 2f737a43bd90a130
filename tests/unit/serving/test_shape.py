"""What a model takes and answers is found out, or it is refused: the order of columns never changes an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from tests.unit.serving import crafted
from wine_api.errors import ModelRejected
from wine_api.serving import shape
from wine_api.serving.wine import FEATURE_NAMES

ALPHABETICAL = sorted(crafted.UCI_NAMES)
ALPHABETICAL_COLUMNS = tuple(crafted.UCI_NAMES.index(name) for name in ALPHABETICAL)


def columns_of(artifact: Any) -> tuple[int, ...] | None:
    return shape.columns_of(*shape.estimator_in(artifact))


def reason_of(artifact: Any) -> str:
    """Return the reason for which *artifact* is refused."""
    with pytest.raises(ModelRejected) as refused:
        shape.columns_of(*shape.estimator_in(artifact))
    return refused.value.reason


class TestColumns:
    @pytest.mark.parametrize(
        "names",
        [
            pytest.param(None, id="no names"),
            pytest.param(crafted.UCI_NAMES, id="the data set's"),
            pytest.param([name.replace(" ", "_").upper() for name in crafted.UCI_NAMES], id="snake case"),
            pytest.param([name.title().replace("Sulfur", "Sulphur") for name in crafted.UCI_NAMES], id="British"),
        ],
    )
    def test_published_order_needs_no_mapping(self, names: list[str] | None) -> None:
        assert columns_of(crafted.fitted_forest(names)) is None

    def test_other_order_is_mapped(self) -> None:
        assert columns_of(crafted.fitted_forest(ALPHABETICAL)) == ALPHABETICAL_COLUMNS

    def test_order_of_a_pipeline_is_that_of_its_first_step_that_does_something(self) -> None:
        model = crafted.fitted_forest(ALPHABETICAL)

        assert columns_of(Pipeline([("nothing", "passthrough"), ("model", model)])) == ALPHABETICAL_COLUMNS

    def test_order_that_only_a_part_knows_counts(self) -> None:
        search = crafted.changed(crafted.fitted("grid search"), best_estimator_=crafted.fitted_forest(ALPHABETICAL))

        assert columns_of(search) == ALPHABETICAL_COLUMNS

    def test_parts_that_disagree_are_refused(self) -> None:
        voting = crafted.fitted("soft voting")
        parts = [crafted.fitted_forest(ALPHABETICAL), crafted.fitted_forest(crafted.UCI_NAMES)]

        assert reason_of(crafted.changed(voting, estimators_=parts)) == "conflicting_order"

    @pytest.mark.parametrize("features", [10, 12, 13])
    def test_other_number_of_features_is_refused(self, features: int) -> None:
        assert reason_of(crafted.fitted_forest(features=features)) == "wrong_feature_count"

    def test_target_as_a_feature_is_refused_by_name(self) -> None:
        model = crafted.fitted_forest([*crafted.UCI_NAMES, "quality"], features=12)

        with pytest.raises(ModelRejected, match="takes 12 features, not 11; not known: quality") as refused:
            columns_of(model)

        assert refused.value.reason == "wrong_feature_count"

    def test_model_of_the_cultivars_is_refused(self) -> None:
        assert reason_of(crafted.fitted_forest(crafted.CULTIVAR_NAMES, features=13)) == "wrong_feature_count"

    def test_eleven_other_names_are_refused(self) -> None:
        assert reason_of(crafted.fitted_forest(crafted.CULTIVAR_NAMES[:11])) == "wrong_feature_names"

    def test_name_that_is_there_twice_is_refused(self) -> None:
        assert reason_of(crafted.fitted_forest([*crafted.UCI_NAMES[:10], "PH"])) == "wrong_feature_names"

    def test_names_in_a_message_are_harmless(self) -> None:
        model = crafted.fitted_forest([*crafted.UCI_NAMES[:10], "x\n" * 500])

        with pytest.raises(ModelRejected, match=r"other columns: [x?]{40}\.$"):
            columns_of(model)


class TestDictionaries:
    def test_model_and_scaler_become_one(self) -> None:
        table, _ = crafted.wines()
        pipeline = crafted.fitted("scaled forest")

        estimator, _ = shape.estimator_in({"model": pipeline[-1], "scaler": pipeline[0], "accuracy": 0.6})

        assert np.array_equal(estimator.predict_proba(table), pipeline.predict_proba(table))

    def test_model_alone_is_enough(self) -> None:
        model = crafted.fitted_forest()

        assert shape.estimator_in({"model": model, "scaler": None})[0] is model

    def test_names_beside_the_model_are_its_order(self) -> None:
        assert columns_of({"model": crafted.fitted_forest(), "features": ALPHABETICAL}) == ALPHABETICAL_COLUMNS

    @pytest.mark.parametrize(
        ("parts", "reason"),
        [
            pytest.param({"classifier": 1}, "not_an_estimator", id="no model"),
            pytest.param({"model": "a path"}, "not_an_estimator", id="text as model"),
            pytest.param({"model": 1, "scaler": 2}, "not_an_estimator", id="numbers"),
            pytest.param(
                {"model": crafted.fitted_forest(), "label_encoder": crafted.StandardScaler()}, "unknown_part", id="more"
            ),
            pytest.param(
                {"model": crafted.fitted_forest(crafted.UCI_NAMES), "feature_names": ALPHABETICAL},
                "conflicting_order",
                id="names that disagree",
            ),
            pytest.param(
                {
                    "model": crafted.fitted_forest(crafted.UCI_NAMES),
                    "scaler": crafted.named(crafted.StandardScaler().fit(crafted.wines()[0]), ALPHABETICAL),
                },
                "conflicting_order",
                id="parts that disagree",
            ),
        ],
    )
    def test_what_cannot_be_put_together_is_refused(self, parts: dict[str, Any], reason: str) -> None:
        assert reason_of(parts) == reason

    @pytest.mark.parametrize(
        ("artifact", "reason"),
        [
            pytest.param([1], "not_an_estimator", id="list"),
            pytest.param(np.zeros(3), "not_an_estimator", id="array"),
            pytest.param(crafted.StandardScaler(), "no_predict", id="scaler"),
        ],
    )
    def test_what_cannot_predict_is_refused(self, artifact: Any, reason: str) -> None:
        assert reason_of(artifact) == reason


class TestLabels:
    @pytest.mark.parametrize(
        ("classes", "labels"),
        [
            pytest.param([4, 5, 6], (4, 5, 6), id="integers"),
            pytest.param([4.0, 5.0, 6.0], (4, 5, 6), id="whole floats"),
            pytest.param([4.5, 5.0, 6.0], (4.5, 5, 6), id="other floats"),
            pytest.param(["bad", "fine", "good"], ("bad", "fine", "good"), id="words"),
            pytest.param([False, True, True], (0, 1), id="truth values"),
        ],
    )
    def test_are_plain(self, classes: list[Any], labels: tuple[Any, ...]) -> None:
        model = crafted.changed(crafted.fitted_forest(), classes_=np.unique(classes))

        found = shape.classes_of(model)

        assert found == labels
        assert [type(label) for label in found or ()] == [type(label) for label in labels]

    def test_words_in_an_array_of_objects_are_words(self) -> None:
        model = crafted.fitted_forest(classes=np.array(["bad", "fine", "good"], dtype=object))

        assert shape.classes_of(model) == ("bad", "fine", "good")

    def test_regressor_has_none(self) -> None:
        assert shape.classes_of(crafted.fitted("linear", regressor=True)) is None

    def test_single_class_is_refused(self) -> None:
        model = crafted.fitted_forest(classes=[6, 6, 6])

        with pytest.raises(ModelRejected, match="single class") as refused:
            shape.classes_of(model)

        assert refused.value.reason == "single_class"

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            pytest.param(
                crafted.changed(crafted.fitted_forest(), classes_=[np.array([1, 2])] * 2), "multi_output", id="several"
            ),
            pytest.param(
                crafted.changed(crafted.fitted_forest(), classes_=np.array([None, 2, 3], dtype=object)),
                "bad_classes",
                id="nothing",
            ),
            pytest.param(
                crafted.changed(crafted.fitted_forest(), classes_=np.array([1.0, np.nan])), "bad_classes", id="NaN"
            ),
            pytest.param(
                crafted.changed(crafted.fitted_forest(), classes_=np.array([1, 1, 2])), "bad_classes", id="twice"
            ),
            pytest.param(crafted.StandardScaler(), "not_a_predictor", id="neither"),
            pytest.param(MultiOutputClassifier(crafted.forest()), "multi_output", id="not fitted"),
        ],
    )
    def test_what_has_no_labels_is_refused(self, model: Any, reason: str) -> None:
        with pytest.raises(ModelRejected) as refused:
            shape.classes_of(model)

        assert refused.value.reason == reason


class TestServable:
    def test_predicts_plain_arrays_without_a_warning(self) -> None:
        table, _ = crafted.wines()
        model = crafted.fitted_forest(crafted.UCI_NAMES)

        shape.make_servable(model)

        assert len(model.predict(table)) == len(table)

    def test_no_part_starts_threads_or_talks(self) -> None:
        model = crafted.changed(
            crafted.fitted("soft voting"),
            n_jobs=-1,
            verbose=True,
            estimators_=[crafted.fitted_forest(n_jobs=4, verbose=2)],
        )

        shape.make_servable(model)

        assert (model.n_jobs, model.verbose) == (1, 0)
        assert (model.estimators_[0].n_jobs, model.estimators_[0].verbose) == (1, 0)

    def test_columns_chosen_by_name_are_found_by_number(self) -> None:
        table, quality = crafted.wines()
        before = ColumnTransformer([("a", crafted.StandardScaler(), [3, 1]), ("b", "passthrough", [0])])
        model = make_pipeline(before, LinearRegression()).fit(table, quality)
        expected = model.predict(table)
        before.transformers_ = [
            (name, step, [FEATURE_NAMES[column] for column in columns] if name != "remainder" else columns)
            for name, step, columns in before.transformers_
        ]

        shape.make_servable(model)

        assert np.array_equal(model.predict(table), expected)

    def test_parts_hand_on_arrays(self) -> None:
        table, quality = crafted.wines()
        model = make_pipeline(crafted.StandardScaler(), crafted.forest()).fit(table, quality)
        model.set_output(transform="pandas")

        shape.make_servable(model)

        assert len(model.predict(table)) == len(table)
