"""A model passes every gate, in order, or is refused by the first that it fails, with the reason."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.serving import crafted
from wine_api.errors import ModelRejected
from wine_api.serving.gates import GATES, Candidate, Policy, Verdict, VettedModel, vet

ARTIFACTS = Path(__file__).parents[2] / "data" / "artifacts"
POLICY = Policy(max_bytes=16 * 1024 * 1024)
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
SIGNED_POLICY = Policy(max_bytes=POLICY.max_bytes, public_keys=(KEY.public_key(),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where there is a model that is served."""
    return crafted.dumped(crafted.fitted("scaled forest"), tmp_path / "model.joblib")


def card_of(path: Path, **changes: Any) -> bytes:
    """Return the card of the model at *path*, with some *changes* to it."""
    content = path.read_bytes()
    rows = crafted.wines()[0][:3]
    model = crafted.fitted("scaled forest")
    document = {
        "name": "wine_quality_model",
        "version": "1.0",
        "created_at": "2026-11-23T00:00:00Z",
        "artifact": {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
        "libraries": {"python": "3.11", "scikit-learn": "1.9.1", "numpy": "2.4.6", "joblib": "1.6.0"},
        "estimator": str(model),
        "features": [
            {
                **dict.fromkeys(("minimum", "maximum", "p01", "p99"), 1.0),
                "name": name,
                "unit": "1",
                "histogram": {"edges": [0.0, 1.0], "counts": [1]},
            }
            for name in crafted.UCI_NAMES
        ],
        "classes": [4, 5, 6],
        "metrics": {},
        "golden": {
            "inputs": rows.tolist(),
            "predictions": model.predict(rows).tolist(),
            "probabilities": model.predict_proba(rows).tolist(),
        },
        "training_data": [],
    }
    return json.dumps({**document, **changes}).encode()


def signature_of(card: bytes) -> bytes:
    return base64.b64encode(KEY.sign(card))


def refusal(candidate: Candidate, policy: Policy = POLICY) -> tuple[str, str]:
    """Return the gate and the reason that refuse *candidate*."""
    with pytest.raises(ModelRejected) as refused:
        vet(candidate, policy)
    return refused.value.gate, refused.value.reason


class TestFile:
    def test_too_large_is_refused_before_it_is_read(self, path: Path) -> None:
        assert refusal(Candidate(path, digest="0"), Policy(max_bytes=100)) == ("size", "too_large")

    def test_empty_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()

        assert refusal(Candidate(tmp_path / "empty")) == ("size", "empty_file")

    def test_other_digest_is_refused(self, path: Path) -> None:
        assert refusal(Candidate(path, digest="0" * 64)) == ("digest", "digest_differs")

    def test_missing_file_is_not_a_refusal(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            vet(Candidate(tmp_path / "missing"), POLICY)


class TestCard:
    def test_card_of_another_artifact_is_refused(self, path: Path, tmp_path: Path) -> None:
        other = crafted.dumped(crafted.fitted("random forest"), tmp_path / "other.joblib")

        assert refusal(Candidate(path, card=card_of(other))) == ("card", "card_of_another_artifact")

    def test_broken_card_is_refused(self, path: Path) -> None:
        assert refusal(Candidate(path, card=b"{}")) == ("card", "invalid_card")

    def test_golden_rows_that_differ_are_refused(self, path: Path) -> None:
        card = json.loads(card_of(path))
        card["golden"]["probabilities"][0] = [0.2, 0.3, 0.5]

        assert refusal(Candidate(path, card=json.dumps(card).encode())) == ("golden", "golden_probabilities_differ")

    def test_model_with_its_card_is_served(self, path: Path) -> None:
        vetted = vet(Candidate(path, card=card_of(path)), POLICY)

        assert vetted.card is not None
        assert vetted.card.version == "1.0"


class TestSignature:
    def test_signed_model_is_served(self, path: Path) -> None:
        card = card_of(path)

        vet(Candidate(path, card=card, signature=signature_of(card)), SIGNED_POLICY)

    def test_unsigned_model_is_refused_when_keys_are_set(self, path: Path) -> None:
        assert refusal(Candidate(path), SIGNED_POLICY) == ("signature", "unsigned")

    def test_card_changed_after_signing_is_refused(self, path: Path) -> None:
        signature = signature_of(card_of(path))

        assert refusal(Candidate(path, card=card_of(path, version="2.0"), signature=signature), SIGNED_POLICY) == (
            "signature",
            "bad_signature",
        )

    def test_artifact_changed_after_signing_is_refused(self, path: Path) -> None:
        card = card_of(path)
        path.write_bytes(crafted.joblib_bytes(crafted.fitted("random forest")))

        candidate = Candidate(path, card=card, signature=signature_of(card))

        assert refusal(candidate, SIGNED_POLICY) == ("card", "card_of_another_artifact")

    def test_nothing_is_unpickled_before_the_signature_is_checked(self, tmp_path: Path) -> None:
        (tmp_path / "hostile").write_bytes(crafted.attacks(tmp_path / "canary")["GLOBAL"])

        assert refusal(Candidate(tmp_path / "hostile"), SIGNED_POLICY) == ("signature", "unsigned")


class TestModel:
    @pytest.mark.parametrize(
        ("model", "gate", "reason"),
        [
            pytest.param(crafted.fitted_forest(features=12), "shape", "wrong_feature_count", id="12 features"),
            pytest.param(crafted.fitted_forest(features=13), "shape", "wrong_feature_count", id="13 features"),
            pytest.param(
                crafted.fitted_forest(crafted.CULTIVAR_NAMES[:11]), "shape", "wrong_feature_names", id="other names"
            ),
            pytest.param(crafted.fitted_forest(classes=[5, 5, 5]), "shape", "single_class", id="single class"),
            pytest.param({"a": 1}, "shape", "not_an_estimator", id="dictionary"),
            pytest.param(crafted.forest(), "shape", "multi_output", id="not fitted"),
            pytest.param(
                crafted.changed(crafted.fitted_forest(), estimators_=[]), "structure", "inconsistent", id="no trees"
            ),
            pytest.param(
                crafted.changed(crafted.fitted("linear", regressor=True), coef_=np.full(11, np.nan)),
                "probes",
                "not_finite",
                id="NaN",
            ),
            pytest.param(
                crafted.changed(crafted.fitted("linear", regressor=True), coef_=np.zeros(5)),
                "probes",
                "predict_failed",
                id="other width inside",
            ),
        ],
    )
    def test_is_refused_with_the_reason(self, model: Any, gate: str, reason: str, tmp_path: Path) -> None:
        assert refusal(Candidate(crafted.dumped(model, tmp_path / "model"))) == (gate, reason)

    def test_type_that_is_not_allowed_is_named(self, path: Path) -> None:
        path.write_bytes(crafted.program(crafted.name("os", "system")))

        with pytest.raises(ModelRejected, match=r"os\.system"):
            vet(Candidate(path), POLICY)

    def test_cyclic_model_is_refused_not_followed(self, tmp_path: Path) -> None:
        pipeline = crafted.Pipeline([("model", None)])
        pipeline.steps[0] = ("model", pipeline)

        assert refusal(Candidate(crafted.dumped(pipeline, tmp_path / "model"))) == ("structure", "cyclic")


class TestVetted:
    def test_says_what_the_model_is(self, path: Path) -> None:
        vetted = vet(Candidate(path), POLICY)

        assert isinstance(vetted, VettedModel)
        assert (vetted.columns, vetted.classes, vetted.n_features) == (None, (4, 5, 6), 11)
        assert (vetted.is_classifier, vetted.has_probabilities, vetted.library_mismatch) == (True, True, {})
        assert vetted.digest == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_regressor_has_neither_classes_nor_probabilities(self, tmp_path: Path) -> None:
        path = crafted.dumped(crafted.fitted("ridge", regressor=True), tmp_path / "model")

        vetted = vet(Candidate(path), POLICY)

        assert (vetted.classes, vetted.is_classifier, vetted.has_probabilities) == (None, False, False)

    def test_other_column_order_gives_the_same_answer(self, tmp_path: Path) -> None:
        table, quality = crafted.wines()
        order = [crafted.UCI_NAMES.index(name) for name in sorted(crafted.UCI_NAMES)]
        model = crafted.named(crafted.forest().fit(table[:, order], quality), sorted(crafted.UCI_NAMES))
        expected = model.estimators_[0].predict_proba(table[:, order])

        vetted = vet(Candidate(crafted.dumped(model, tmp_path / "model")), POLICY)

        assert vetted.columns == tuple(order)
        assert np.array_equal(vetted.estimator.estimators_[0].predict_proba(table[:, list(vetted.columns)]), expected)

    def test_model_and_scaler_in_a_dictionary_are_served(self, tmp_path: Path) -> None:
        table, _ = crafted.wines()
        model = crafted.fitted("scaled forest")
        path = crafted.dumped({"model": model[-1], "scaler": model[0]}, tmp_path / "model")

        vetted = vet(Candidate(path), POLICY)

        assert np.array_equal(vetted.estimator.predict_proba(table), model.predict_proba(table))

    @pytest.mark.parametrize("kind", crafted.CLASSIFIERS)
    def test_every_honest_classifier_is_served_as_it_was(self, kind: str, tmp_path: Path) -> None:
        table, _ = crafted.wines()
        model = crafted.fitted(kind)

        vetted = vet(Candidate(crafted.dumped(model, tmp_path / "model")), POLICY)

        assert np.array_equal(vetted.estimator.predict(table), model.predict(table))

    @pytest.mark.parametrize("kind", crafted.REGRESSORS)
    def test_every_honest_regressor_is_served_as_it_was(self, kind: str, tmp_path: Path) -> None:
        table, _ = crafted.wines()
        model = crafted.fitted(kind, regressor=True)

        vetted = vet(Candidate(crafted.dumped(model, tmp_path / "model")), POLICY)

        assert np.array_equal(vetted.estimator.predict(table), model.predict(table))


class TestReport:
    def test_every_gate_says_something_in_order(self, path: Path) -> None:
        verdicts: list[Verdict] = []

        vet(Candidate(path), POLICY, report=verdicts.append)

        assert [verdict.gate for verdict in verdicts] == list(GATES)
        assert all(verdict.passed and verdict.detail and verdict.seconds >= 0 for verdict in verdicts)

    def test_ends_with_the_gate_that_refuses(self, path: Path) -> None:
        verdicts: list[Verdict] = []
        path.write_bytes(b"nothing")

        with pytest.raises(ModelRejected):
            vet(Candidate(path), POLICY, report=verdicts.append)

        assert (verdicts[-1].gate, verdicts[-1].passed) == ("unpickling", False)
        assert verdicts[-1].reason == "not_a_model_file"

    def test_trial_comes_before_anything_is_built_here(self, path: Path) -> None:
        def trial(candidate: Candidate, policy: Policy) -> None:
            raise ModelRejected("trial", "trial_crashed", "It crashed.")

        verdicts: list[Verdict] = []
        with pytest.raises(ModelRejected, match="crashed"):
            vet(Candidate(path), POLICY, trial=trial, report=verdicts.append)

        assert [verdict.gate for verdict in verdicts] == ["size", "digest", "signature", "card", "trial"]


SERVED = {
    "1.3.2": {"neighbours", "scaler_logistic", "scaler_svc"},
    "1.4.2": {
        "extra_trees",
        "forest",
        "forest_regressor",
        "gradient_boosting",
        "hist_gradient_boosting",
        "neighbours",
        "scaler_forest",
        "scaler_logistic",
        "scaler_svc",
        "tree",
    },
}
SERVED["1.6.1"] = SERVED["1.4.2"]
SERVED["1.8.0"] = SERVED["1.4.2"] | {"imputer_logistic"}
KINDS = sorted(SERVED["1.8.0"])


def answers_of(version: str) -> Any:
    return json.loads((ARTIFACTS / version / "expected.json").read_text())


class TestOtherVersions:
    @pytest.mark.parametrize(
        ("version", "kind"), [(version, kind) for version, kinds in SERVED.items() for kind in sorted(kinds)]
    )
    def test_what_is_served_is_exact_and_its_version_is_told(self, version: str, kind: str) -> None:
        expected = answers_of(version)

        vetted = vet(Candidate(ARTIFACTS / version / f"{kind}.joblib"), POLICY)

        rows = np.array(expected["rows"])
        assert vetted.estimator.predict(rows).tolist() == expected["models"][kind]["predictions"]
        assert vetted.library_mismatch == {"scikit-learn": version}
        if vetted.has_probabilities:
            difference = vetted.estimator.predict_proba(rows) - expected["models"][kind]["probabilities"]
            assert np.abs(difference).max() <= 1e-12

    @pytest.mark.parametrize(
        ("version", "kind"),
        [(version, kind) for version, kinds in SERVED.items() for kind in KINDS if kind not in kinds],
    )
    def test_everything_else_is_refused_and_its_version_is_told(self, version: str, kind: str) -> None:
        with pytest.raises(ModelRejected, match=version.replace(".", r"\.")):
            vet(Candidate(ARTIFACTS / version / f"{kind}.joblib"), POLICY)

    @pytest.mark.parametrize("kind", ["forest", "extra_trees", "tree", "scaler_forest", "forest_regressor"])
    def test_trees_of_1_3_are_never_served(self, kind: str) -> None:
        candidate = Candidate(ARTIFACTS / "1.3.2" / f"{kind}.joblib")

        assert refusal(candidate) == ("libraries", "trees_of_another_version")
