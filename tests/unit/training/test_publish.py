"""What is published has passed every gate, is whole, and is what it says it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from tests.models import Model, Models, synthetic_wines
from tests.unit.serving.crafted import attacks, fitted_forest, joblib_bytes
from wine_api.errors import ModelNotChecked, ModelRejected, ModelVersionNotFound
from wine_api.serving.gates import GATES, Candidate, Policy, vet
from wine_api.serving.signatures import sign, verify
from wine_api.serving.stores.base import CARD_NAME, SIGNATURE_NAME, VersionExists, version_key
from wine_api.serving.stores.local import LocalStore
from wine_api.serving.trial import TrialUnavailable
from wine_api.training.publish import (
    CannotPublish,
    candidate_of,
    examine,
    latest_of,
    promote,
    upload,
    vetted_release,
)

POLICY = Policy(max_bytes=10_000_000)
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
SIGNED = Policy(max_bytes=10_000_000, public_keys=(KEY.public_key(),))


def passing(candidate: Candidate, policy: Policy) -> None:
    """Stand for a trial that finds nothing."""


def in_this_process(candidate: Candidate, policy: Policy) -> None:
    """Stand for the trial with what it does, but for the process."""
    vet(candidate, policy)


def written(folder: Path, model: Model, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "model.joblib"
    file.write_bytes(model.content)
    (folder / CARD_NAME).write_bytes(model.card(file, version))
    return file


@pytest.fixture
def file(tmp_path: Path, models: Models) -> Path:
    """A model with its card, version 1.0."""
    return written(tmp_path / "trained", models.fives_and_sixes, "1.0")


@pytest.fixture
def other_file(tmp_path: Path, models: Models) -> Path:
    """Another model, which also says that it is version 1.0."""
    return written(tmp_path / "other", models.sevens_and_eights, "1.0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What *store* is made of."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder, model_key="models/latest/wine_quality_model.joblib")


def released(file: Path, key: Ed25519PrivateKey | None = None, policy: Policy = POLICY, version: str | None = None):  # type: ignore[no-untyped-def]
    return vetted_release(candidate_of(file), policy, passing, version=version, key=key)


def published(store: LocalStore, file: Path, key: Ed25519PrivateKey | None = None) -> bool:
    with released(file, key) as release:
        return upload(store, release)


class TestLookingForCompanions:
    def test_finds_the_card_and_its_signature_beside_the_model(self, file: Path) -> None:
        card = file.with_name(CARD_NAME).read_bytes()
        file.with_name(SIGNATURE_NAME).write_bytes(b"signature")

        assert candidate_of(file) == Candidate(file, card=card, signature=b"signature")

    def test_a_named_card_has_its_signature_beside_itself(self, file: Path, tmp_path: Path) -> None:
        card = tmp_path / "a card.json"
        card.write_bytes(b"{}")
        card.with_name("a card.json.sig").write_bytes(b"signature")

        assert candidate_of(file, card) == Candidate(file, card=b"{}", signature=b"signature")

    def test_a_model_may_be_alone(self, tmp_path: Path) -> None:
        assert candidate_of(tmp_path / "model.joblib") == Candidate(tmp_path / "model.joblib")

    @pytest.mark.parametrize(("name", "gate"), [(CARD_NAME, "card"), (SIGNATURE_NAME, "signature")])
    def test_reads_no_more_than_a_service_would(self, file: Path, name: str, gate: str) -> None:
        file.with_name(name).write_bytes(b" " * (1024 * 1024 + 1))

        with pytest.raises(ModelRejected) as refused:
            candidate_of(file)

        assert (refused.value.gate, refused.value.reason) == (gate, "too_large")


class TestExamining:
    def test_has_a_word_on_every_gate_in_their_order(self, file: Path) -> None:
        results = examine(candidate_of(file), POLICY, passing)

        assert [result.gate for result in results] == [*GATES, "parity"]
        assert {result.outcome for result in results} == {"passed"}
        assert all(result.ms is not None and result.detail for result in results)

    @pytest.mark.parametrize(
        ("estimator", "engine", "reason"),
        [
            (RandomForestClassifier(3, random_state=0), "merged_trees", None),
            (KNeighborsClassifier(), "scikit-learn", "not_covered"),
        ],
    )
    def test_says_at_last_which_engine_answers(
        self, tmp_path: Path, estimator: Any, engine: str, reason: str | None
    ) -> None:
        wines = synthetic_wines()
        file = tmp_path / "model.joblib"
        file.write_bytes(joblib_bytes(estimator.fit(wines, np.arange(len(wines)) % 3)))

        parity = examine(Candidate(file), POLICY, passing)[-1]

        assert (parity.gate, parity.outcome, parity.reason) == ("parity", "passed", reason)
        assert parity.detail.startswith(engine)

    def test_runs_no_gate_after_the_one_that_refuses(self, tmp_path: Path) -> None:
        (tmp_path / "empty.joblib").touch()

        first, *others = examine(Candidate(tmp_path / "empty.joblib"), POLICY, passing)

        assert (first.gate, first.outcome, first.reason) == ("size", "refused", "empty_file")
        assert {result.outcome for result in others} == {"not run"}

    def test_tells_which_gate_refused_it_in_the_trial(self, tmp_path: Path) -> None:
        file = tmp_path / "model.joblib"
        file.write_bytes(joblib_bytes(fitted_forest(features=13)))

        results = {result.gate: result for result in examine(Candidate(file), POLICY, in_this_process)}

        assert results["trial"].outcome == "refused"
        assert results["trial"].ms is not None
        assert (results["unpickling"].outcome, results["unpickling"].detail) == ("passed", "in the trial")
        assert (results["shape"].outcome, results["shape"].reason) == ("refused", "wrong_feature_count")
        assert results["structure"].outcome == "not run"

    def test_runs_no_code_of_the_file(self, tmp_path: Path) -> None:
        file, canary = tmp_path / "model.joblib", tmp_path / "canary"
        file.write_bytes(attacks(canary)["GLOBAL"])

        results = {result.gate: result for result in examine(Candidate(file), POLICY, in_this_process)}

        assert results["unpickling"].reason == "type_not_allowed"
        assert not canary.exists()

    def test_a_machine_that_cannot_try_a_model_says_nothing_about_it(self, file: Path) -> None:
        def unavailable(candidate: Candidate, policy: Policy) -> None:
            raise TrialUnavailable("It did not start.")

        with pytest.raises(ModelNotChecked, match="It did not start"):
            examine(candidate_of(file), POLICY, unavailable)


class TestReleasing:
    def test_takes_the_version_from_the_card(self, file: Path) -> None:
        with released(file) as release:
            assert release.version == "1.0"
            assert release.artifact.read_bytes() == file.read_bytes()

    def test_refuses_another_version_than_the_card_says(self, file: Path) -> None:
        with pytest.raises(CannotPublish, match=r"version 1\.0, not 2\.0"), released(file, version="2.0"):
            pass

    def test_refuses_a_model_without_a_card(self, file: Path) -> None:
        file.with_name(CARD_NAME).unlink()

        with pytest.raises(CannotPublish, match="no card"), released(file):
            pass

    def test_refuses_the_card_of_another_model(self, file: Path, other_file: Path) -> None:
        other_file.with_name(CARD_NAME).replace(file.with_name(CARD_NAME))

        with pytest.raises(ModelRejected) as refused, released(file):
            pass

        assert refused.value.reason == "card_of_another_artifact"

    def test_signs_the_card(self, file: Path) -> None:
        with released(file, KEY, SIGNED) as release:
            verify(release.card, release.signature, SIGNED.public_keys)

    def test_keeps_a_signature_that_was_made_elsewhere(self, file: Path) -> None:
        signature = sign(file.with_name(CARD_NAME).read_bytes(), KEY)
        file.with_name(SIGNATURE_NAME).write_bytes(signature)

        with released(file, policy=SIGNED) as release:
            assert release.signature == signature

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            pytest.param(None, "unsigned", id="no key"),
            pytest.param(Ed25519PrivateKey.from_private_bytes(b"x" * 32), "bad_signature", id="a key nobody trusts"),
        ],
    )
    def test_refuses_what_services_would_refuse_for_its_signature(
        self, file: Path, key: Ed25519PrivateKey | None, reason: str
    ) -> None:
        with pytest.raises(ModelRejected) as refused, released(file, key, SIGNED):
            pass

        assert refused.value.reason == reason

    def test_refuses_a_file_that_services_would_find_too_large(self, file: Path) -> None:
        smaller = Policy(max_bytes=file.stat().st_size - 1)

        with pytest.raises(ModelRejected) as refused, released(file, policy=smaller):
            pass

        assert refused.value.reason == "too_large"

    def test_takes_a_file_that_is_just_small_enough(self, file: Path) -> None:
        with released(file, policy=Policy(max_bytes=file.stat().st_size)) as release:
            assert release.artifact.read_bytes() == file.read_bytes()

    def test_what_was_vetted_is_what_is_uploaded(self, store: LocalStore, folder: Path, file: Path) -> None:
        vetted = file.read_bytes()

        with released(file) as release:
            file.write_bytes(b"retrained meanwhile")
            upload(store, release)

        assert (folder / version_key("1.0")).read_bytes() == vetted

    def test_leaves_no_copy_behind(self, file: Path) -> None:
        with released(file) as release:
            pass

        assert not release.artifact.parent.exists()


class TestUploading:
    def test_puts_the_whole_version_where_nobody_is_served_it(self, store: LocalStore, file: Path) -> None:
        is_new = published(store, file, KEY)

        version = store.find("1.0")
        assert is_new
        assert store.card(version) == file.with_name(CARD_NAME).read_bytes()
        assert store.signature(version) == sign(file.with_name(CARD_NAME).read_bytes(), KEY)
        assert latest_of(store) is None

    def test_the_same_again_is_there_already(self, store: LocalStore, file: Path) -> None:
        published(store, file, KEY)

        assert not published(store, file, KEY)

    def test_another_model_is_refused(self, store: LocalStore, file: Path, other_file: Path) -> None:
        published(store, file)

        with pytest.raises(VersionExists):
            published(store, other_file)

    def test_another_card_is_refused(self, store: LocalStore, file: Path) -> None:
        published(store, file)
        card = json.loads(file.with_name(CARD_NAME).read_text())
        file.with_name(CARD_NAME).write_text(json.dumps(card | {"metrics": {"accuracy": 1.0}}))

        with pytest.raises(VersionExists):
            published(store, file)

    def test_a_version_is_not_signed_afterwards(self, store: LocalStore, file: Path) -> None:
        published(store, file)

        with pytest.raises(VersionExists):
            published(store, file, KEY)

    def test_a_folder_that_lost_its_model_is_not_filled_up(self, store: LocalStore, folder: Path, file: Path) -> None:
        published(store, file)
        (folder / version_key("1.0")).unlink()

        with pytest.raises(VersionExists):
            published(store, file)


class TestPromoting:
    def test_says_what_was_served_before(self, store: LocalStore, file: Path) -> None:
        published(store, file)

        first = promote(store, "1.0", POLICY)
        again = promote(store, "1.0", POLICY)

        assert first.before is None
        assert first.after.version == "1.0"
        assert again.before == first.after

    @pytest.mark.parametrize("version", ["2.0", "latest", "../1.0"])
    def test_refuses_a_version_that_is_not_there(self, store: LocalStore, file: Path, version: str) -> None:
        published(store, file)

        with pytest.raises(ModelVersionNotFound):
            promote(store, version, POLICY)

    @pytest.mark.parametrize(
        ("name", "content", "error"),
        [
            pytest.param(CARD_NAME, b"{", ModelRejected, id="a broken card"),
            pytest.param("wine_quality_model.joblib", b"half", CannotPublish, id="half a model"),
            pytest.param("wine_quality_model.joblib", None, ModelVersionNotFound, id="no model"),
        ],
    )
    def test_refuses_a_version_that_is_not_whole(
        self, store: LocalStore, folder: Path, file: Path, name: str, content: bytes | None, error: type[Exception]
    ) -> None:
        published(store, file)
        (folder / version_key("1.0", name)).unlink()
        if content is not None:
            (folder / version_key("1.0", name)).write_bytes(content)

        with pytest.raises(error):
            promote(store, "1.0", POLICY)

        assert latest_of(store) is None

    def test_refuses_what_services_would_refuse_for_its_signature(self, store: LocalStore, file: Path) -> None:
        published(store, file)

        with pytest.raises(ModelRejected) as refused:
            promote(store, "1.0", SIGNED)

        assert refused.value.reason == "unsigned"
        assert latest_of(store) is None
