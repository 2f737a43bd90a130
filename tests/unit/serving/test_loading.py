"""What a load costs the first time, and what is known from then on."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models import WINE, Model, Models
from wine_api.errors import ModelNotChecked, ModelRejected
from wine_api.serving import files, loading
from wine_api.serving.artifact import Artifact
from wine_api.serving.gates import Candidate, Policy
from wine_api.serving.holder import LoadedModel
from wine_api.serving.loading import ModelLoader
from wine_api.serving.trial import TrialUnavailable


class CountedTrial:
    """Stands for the trial in a process of its own; *outcome* is what it raises."""

    def __init__(self) -> None:
        self.held = 0
        self.outcome: Exception | None = None

    def __call__(self, candidate: Candidate, policy: Policy) -> None:
        self.held += 1
        if self.outcome is not None:
            raise self.outcome


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> CountedTrial:
    trial = CountedTrial()
    monkeypatch.setattr(loading, "SpawnedTrial", lambda seconds: trial)
    return trial


@pytest.fixture
def artifact(tmp_path: Path, models: Models) -> Artifact:
    path = tmp_path / "model.joblib"
    path.write_bytes(models.fives_and_sixes.content)
    return Artifact(
        path=path,
        version="1.0",
        digest=models.fives_and_sixes.digest,
        size=path.stat().st_size,
        source={"kind": "local"},
        card_text=models.fives_and_sixes.card(path, "1.0"),
        signature=None,
        identity="first",
    )


def another(artifact: Artifact, model: Model, folder: Path) -> Artifact:
    """Return the artifact of *model*, without a card, in a place like that of *artifact*."""
    path = folder / model.digest / "model.joblib"
    path.parent.mkdir()
    path.write_bytes(model.content)
    return replace(artifact, path=path, digest=model.digest, card_text=None)


def load(artifact: Artifact, survived: Callable[[], None] | None = None) -> LoadedModel:
    return ModelLoader(Policy(max_bytes=10_000_000)).load(artifact, time.monotonic() + 60.0, survived=survived)


def test_a_model_is_ready_to_answer_with_a_fast_engine(trial, artifact, models):
    model = load(artifact)

    assert (model.version, model.digest, model.classes) == ("1.0", artifact.digest, (5, 6))
    assert (model.engine.name, model.engine_reason) == ("merged_trees", None)
    assert model.engine.predict(np.array([WINE])).labels == [models.fives_and_sixes.answer(WINE)]


def test_a_model_is_tried_once(trial, artifact):
    first, again = load(artifact), load(artifact)

    assert trial.held == 1
    assert again.engine.name == first.engine.name


def test_to_go_back_to_the_model_before_nothing_is_loaded(trial, artifact, models, tmp_path):
    loader, deadline = ModelLoader(Policy(max_bytes=10_000_000)), time.monotonic() + 60.0
    other = another(artifact, models.sevens_and_eights, tmp_path)
    first, second = loader.load(artifact, deadline), loader.load(other, deadline)
    told: list[str] = []

    again = loader.load(replace(artifact, version="1.0.1"), deadline, survived=lambda: told.append("survived"))

    assert again.engine is first.engine
    assert (again.version, second.engine is first.engine, told) == ("1.0.1", False, ["survived"])


def test_the_same_bytes_with_another_card_are_vetted_again(trial, artifact):
    loader, deadline = ModelLoader(Policy(max_bytes=10_000_000)), time.monotonic() + 60.0
    loader.load(artifact, deadline)

    with pytest.raises(ModelRejected) as refused:
        loader.load(replace(artifact, card_text=b"{}"), deadline)

    assert refused.value.gate == "card"


def test_no_more_than_two_models_stay_in_memory(trial, artifact, models, tmp_path):
    loader, deadline = ModelLoader(Policy(max_bytes=10_000_000)), time.monotonic() + 60.0
    others = [another(artifact, model, tmp_path) for model in (models.sevens_and_eights, models.words)]
    kept = [weakref.ref(loader.load(one, deadline).engine) for one in (artifact, *others)]

    gc.collect()

    assert [engine() is None for engine in kept] == [True, False, False]


def test_a_model_is_tried_again_by_other_versions_of_the_libraries(trial, artifact, monkeypatch):
    load(artifact)
    monkeypatch.setattr(loading, "verdict_key", lambda digest: f"{digest}-of-other-versions")

    load(artifact)

    assert trial.held == 2


def test_a_model_that_does_not_survive_is_refused_each_time(trial, artifact):
    trial.outcome = ModelRejected("trial", "trial_crashed", "It crashed.")
    told: list[str] = []

    for _ in range(2):
        with pytest.raises(ModelRejected, match="It crashed"):
            load(artifact, survived=lambda: told.append("survived"))

    assert trial.held == 2
    assert told == []


def test_others_may_load_a_model_as_soon_as_it_has_survived(trial, artifact):
    held_by_the_others: list[int] = []

    def let_another_load() -> None:
        load(artifact)
        held_by_the_others.append(trial.held - 1)

    load(artifact, survived=let_another_load)
    load(artifact, survived=let_another_load)

    assert held_by_the_others == [0, 0]


def test_a_host_that_cannot_try_a_model_says_nothing_about_it(trial, artifact):
    trial.outcome = TrialUnavailable("No more processes.")
    with pytest.raises(ModelNotChecked):
        load(artifact)
    trial.outcome = None

    load(artifact)

    assert trial.held == 2


def test_a_disk_that_is_full_only_costs_another_trial(trial, artifact, monkeypatch):
    def full(path: Path, document: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)

    assert load(artifact).version == load(artifact).version
    assert trial.held == 2


def test_the_bundled_model_needs_no_trial_with_the_libraries_that_wrote_it(trial, artifact, monkeypatch):
    bundled = replace(artifact, source={"kind": "bundled"})
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(loading, "installed_version", lambda name: "0.0")
        elsewhere.setattr(loading, "verdict_key", lambda digest: "of other versions")
        load(bundled)
    held_elsewhere = trial.held

    load(bundled)

    assert (held_elsewhere, trial.held) == (1, 1)


def test_a_model_that_no_engine_covers_is_answered_by_scikit_learn_and_says_so(trial, artifact, models, tmp_path):
    model = load(another(artifact, models.without_probabilities, tmp_path))

    assert (model.engine.name, model.engine_reason) == ("sklearn", "not_covered")
