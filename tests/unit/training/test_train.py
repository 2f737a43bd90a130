"""The model is a plain forest, and the same data make the same file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.unit.training.synthetic import synthetic_dataset
from wine_api.training.train import fit, write_artifact

TRAIN_AGAIN = """
import sys
from pathlib import Path
import joblib
from tests.unit.training.synthetic import synthetic_dataset
from wine_api.training.train import fit, write_artifact
joblib.load(sys.argv[1])
write_artifact(fit(synthetic_dataset(), seed=3), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def dataset():
    return synthetic_dataset()


@pytest.fixture(scope="module")
def model(dataset):
    return fit(dataset, seed=3)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_training_twice_gives_the_same_bytes(tmp_path, dataset, model):
    write_artifact(model, tmp_path / "first")
    write_artifact(fit(dataset, seed=3), tmp_path / "second")

    assert digest(tmp_path / "first") == digest(tmp_path / "second")


def test_training_in_another_process_that_has_loaded_a_model_gives_the_same_bytes(tmp_path, model, pytestconfig):
    write_artifact(model, tmp_path / "first")
    command = [sys.executable, "-c", TRAIN_AGAIN, str(tmp_path / "first"), str(tmp_path / "second")]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(pytestconfig.rootpath)}

    subprocess.run(command, check=True, cwd=tmp_path, env=environment)

    assert digest(tmp_path / "first") == digest(tmp_path / "second")


def test_another_seed_grows_other_trees(dataset, model):
    other = fit(dataset, seed=4)

    assert not np.array_equal(model.predict_proba(dataset.wines), other.predict_proba(dataset.wines))


def test_classes_are_the_integers_of_the_data(model):
    assert model.classes_.dtype == np.int64
    assert model.classes_.tolist() == [4, 5, 6, 7]


def test_the_model_has_no_column_names_and_starts_no_threads(model):
    assert not hasattr(model, "feature_names_in_")
    assert model.n_jobs is None
