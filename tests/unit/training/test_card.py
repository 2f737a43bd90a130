"""The card says what the artifact is, and its golden rows are exactly what the model answers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from importlib import resources

import joblib
import numpy as np
import pytest

from tests.unit.training.synthetic import ROWS, synthetic_dataset
from wine_api.errors import ModelRejected
from wine_api.serving.artifact import ModelCard
from wine_api.serving.wine import FEATURE_NAMES, FEATURES
from wine_api.training.card import build_card
from wine_api.training.evaluate import evaluate
from wine_api.training.train import fit, write_artifact


@pytest.fixture(scope="module")
def dataset():
    return synthetic_dataset()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """All that a card is made of, but its version."""
    artifact = tmp_path_factory.mktemp("trained") / "wine_quality_model.joblib"
    model = fit(dataset, seed=0)
    write_artifact(model, artifact)
    return {
        "model": model,
        "dataset": dataset,
        "metrics": evaluate(dataset, folds=2, seed=0).as_metrics(),
        "artifact": artifact,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    }


@pytest.fixture(scope="module")
def document(trained):
    return json.loads(build_card(**trained, version="1.2.3"))


def test_the_service_can_read_the_card(trained):
    card = ModelCard.parse(build_card(**trained, version="1.2.3"))

    assert card.version == "1.2.3"
    assert card.classes == (4, 5, 6, 7)
    assert card.metrics["all_rows"]["rows"] == ROWS


def test_refuses_to_write_a_card_that_the_service_would_refuse(trained):
    with pytest.raises(ModelRejected, match=r"\$\.version"):
        build_card(**trained, version="../1")


def test_names_the_bytes_of_the_artifact(trained, document):
    content = trained["artifact"].read_bytes()

    assert document["artifact"] == {
        "file": "wine_quality_model.joblib",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


def test_golden_rows_are_the_exact_answers_of_the_artifact(trained, document):
    loaded = joblib.load(trained["artifact"])
    golden = document["golden"]
    inputs = np.array(golden["inputs"])

    assert loaded.predict(inputs).tolist() == golden["predictions"]
    assert loaded.predict_proba(inputs).tolist() == golden["probabilities"]


def test_golden_rows_are_wines_of_the_data_with_every_quality_and_extreme(dataset, document):
    golden = np.array(document["golden"]["inputs"])
    qualities = dict(zip(map(tuple, dataset.wines), dataset.qualities.tolist(), strict=True))

    assert len(golden) == 32
    assert {qualities[tuple(wine)] for wine in golden} == {4, 5, 6, 7}
    assert golden.min(axis=0).tolist() == dataset.wines.min(axis=0).tolist()
    assert golden.max(axis=0).tolist() == dataset.wines.max(axis=0).tolist()


def test_describes_the_features_in_the_published_order(document):
    features = document["features"]

    assert [feature["name"] for feature in features] == list(FEATURE_NAMES)
    assert [feature["unit"] for feature in features] == [feature.unit for feature in FEATURES]


def test_histograms_count_every_wine_between_minimum_and_maximum(document):
    features = document["features"]

    assert [sum(feature["histogram"]["counts"]) for feature in features] == [ROWS] * len(FEATURES)
    assert all(feature["histogram"]["edges"][0] == feature["minimum"] for feature in features)
    assert all(feature["histogram"]["edges"][-1] == feature["maximum"] for feature in features)
    assert all(feature["minimum"] <= feature["p01"] < feature["p99"] <= feature["maximum"] for feature in features)


def test_describes_a_feature_that_never_varies(trained, dataset):
    wines = dataset.wines.copy()
    wines[:, 2] = 0.5
    flat = dataclasses.replace(dataset, wines=wines)

    document = json.loads(build_card(**{**trained, "dataset": flat}, version="1"))

    assert document["features"][2]["histogram"] == {"edges": [0.0, 1.0], "counts": [ROWS]}


def test_says_when_and_from_what_it_was_made(document):
    assert document["created_at"] == "2026-01-02T03:04:05Z"
    assert document["training_data"] == [{"file": "synthetic.csv", "sha256": "0" * 64, "rows": ROWS}]
    assert document["estimator"].startswith("RandomForestClassifier(")


def test_the_documented_schema_is_the_one_that_is_enforced(pytestconfig):
    documented = pytestconfig.rootpath / "docs" / "model_card.schema.json"
    enforced = resources.files("wine_api.serving") / "model_card.schema.json"

    assert documented.read_text() == enforced.read_text()
