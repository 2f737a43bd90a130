"""What a model must pass before it may answer anybody, in this order; the first gate that it fails refuses it.

A gate is a function that raises `ModelRejected` with a stable reason, or returns a few words on what it saw. Until
the signature is checked, nothing is read from the file but its bytes; until the trial, which is another process, has
survived it, nothing of it is built in this one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sklearn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wine_api.errors import ModelRejected
from wine_api.serving import probes, shape, signatures, structure, unpickling
from wine_api.serving.artifact import ModelCard, sha256_of
from wine_api.serving.shape import Shape
from wine_api.serving.unpickling import Unpickled
from wine_api.serving.wine import FEATURE_COUNT, Label


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file that wants to be served, with what came along.

    *digest* is the SHA-256 that it is expected to have, None where nobody knows. *card* and *signature* are the bytes
    as they came.
    """

    path: Path
    digest: str | None = None
    card: bytes | None = None
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What this service demands of every model.

    *max_bytes* bounds the file, and what comes out of it when it is compressed. *allowed_types* are admitted besides
    those of allowed_types.txt. With *public_keys*, a model must be signed by one of them.
    """

    max_bytes: int
    allowed_types: frozenset[str] = frozenset()
    public_keys: tuple[Ed25519PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says. *reason* is None when it lets the model pass."""

    gate: str
    passed: bool
    reason: str | None
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class VettedModel:
    """A model that passed every gate, set up to answer plain arrays in the thread that asks.

    *columns* are the indexes into FEATURES of what it takes, in its order; None if that is the order of FEATURES.
    *classes* is None for a regressor. *library_mismatch* maps a library to the version that wrote the model, where it
    is not the one that is installed.
    """

    estimator: Any
    columns: tuple[int, ...] | None
    classes: tuple[Label, ...] | None
    has_probabilities: bool
    library_mismatch: Mapping[str, str]
    card: ModelCard | None
    digest: str
    n_features: int = FEATURE_COUNT

    @property
    def is_classifier(self) -> bool:
        """Whether it gives one of some labels, not a number."""
        return self.classes is not None


# Tries a candidate in a process of its own, and raises `ModelRejected` if that does not end well.
Trial = Callable[[Candidate, Policy], None]
Report = Callable[[Verdict], None]


def vet(
    candidate: Candidate,
    policy: Policy,
    *,
    trial: Trial | None = None,
    tried: bool = False,
    report: Report | None = None,
) -> VettedModel:
    """Return the model of *candidate*, or raise `ModelRejected` with the gate and the reason that refused it.

    Without a *trial* the model is built and asked in this process alone: for the trial itself, and for files that are
    known to have been *tried*, with these versions of everything; those are not asked for the same answers again.
    *report* is told the verdict of each gate as it falls.
    """
    case = _Case(candidate, policy, trial, tried)
    for gate, check in GATES.items():
        verdict, error = _judged(gate, check, case)
        if report is not None:
            report(verdict)
        if error is not None:
            raise error
    return case.vetted()


@dataclass(slots=True)
class _Case:
    """What is known of a candidate so far; each gate adds to it."""

    candidate: Candidate
    policy: Policy
    trial: Trial | None
    tried: bool
    digest: str = ""
    size: int = 0
    card: ModelCard | None = None
    unpickled: Unpickled | None = None
    library_mismatch: dict[str, str] = field(default_factory=dict)
    estimator: Any = None
    shape: Shape | None = None

    @property
    def contents(self) -> Unpickled:
        assert self.unpickled is not None  # noqa: S101  # nosec B101  # the unpickling gate comes before those that ask
        return self.unpickled

    @property
    def known_shape(self) -> Shape:
        assert self.shape is not None  # noqa: S101  # nosec B101  # the shape gate comes before those that ask
        return self.shape

    def vetted(self) -> VettedModel:
        return VettedModel(
            estimator=self.estimator,
            columns=self.known_shape.columns,
            classes=self.known_shape.classes,
            has_probabilities=self.known_shape.has_probabilities,
            library_mismatch=self.library_mismatch,
            card=self.card,
            digest=self.digest,
        )


Gate = Callable[[_Case], str]


def _judged(gate: str, check: Gate, case: _Case) -> tuple[Verdict, ModelRejected | None]:
    started = time.perf_counter()
    try:
        detail = check(case)
    except MemoryError:
        error = ModelRejected(gate, "out_of_memory", "There is not enough memory for the model.")
        return Verdict(gate, False, error.reason, error.detail, time.perf_counter() - started), error
    except ModelRejected as error:
        error = _with_the_versions(error, case)
        return Verdict(error.gate, False, error.reason, error.detail, time.perf_counter() - started), error
    return Verdict(gate, True, None, detail, time.perf_counter() - started), None


def _with_the_versions(error: ModelRejected, case: _Case) -> ModelRejected:
    """Tell also that the model is of another version, which is the likely cause of what *error* says."""
    if not case.library_mismatch:
        return error
    written_by = (
        f"It was written by scikit-learn {case.library_mismatch['scikit-learn']}; {sklearn.__version__} is here."
    )
    return ModelRejected(error.gate, error.reason, f"{error.detail} {written_by}")


_KNOWN = "passed before"


# The file -------------------------------------------------------------------------------------------------------------


def _check_size(case: _Case) -> str:
    case.size = case.candidate.path.stat().st_size
    if case.size > case.policy.max_bytes:
        raise ModelRejected("size", "too_large", f"The model file has more than {case.policy.max_bytes} bytes.")
    if case.size == 0:
        raise ModelRejected("size", "empty_file", "The model file is empty.")
    return f"{case.size} bytes"


def _check_digest(case: _Case) -> str:
    case.digest = sha256_of(case.candidate.path)
    if case.candidate.digest not in (None, case.digest):
        raise ModelRejected("digest", "digest_differs", "The model file does not have the SHA-256 that it should have.")
    return f"sha256 {case.digest}"


def _check_signature(case: _Case) -> str:
    if not case.policy.public_keys:
        return "not asked for"
    signatures.verify(case.candidate.card, case.candidate.signature, case.policy.public_keys)
    return "signed by a key that is trusted"


def _check_card(case: _Case) -> str:
    if case.candidate.card is None:
        return "no card"
    case.card = ModelCard.parse(case.candidate.card)
    if (case.card.sha256, case.card.size) != (case.digest, case.size):
        raise ModelRejected("card", "card_of_another_artifact", "The model card belongs to another model file.")
    return f"version {case.card.version}"


def _check_trial(case: _Case) -> str:
    if case.tried:
        return _KNOWN
    if case.trial is None:
        return "not run"
    case.trial(case.candidate, case.policy)
    return "passed every other gate in a process of its own"


# What is in it --------------------------------------------------------------------------------------------------------


def _check_unpickling(case: _Case) -> str:
    case.unpickled = unpickling.unpickle(
        case.candidate.path, max_bytes=case.policy.max_bytes, extra_types=case.policy.allowed_types
    )
    return f"holds a {type(case.contents.model).__name__}"


# scikit-learn 1.3 kept counts where later versions keep fractions: such a forest loads, and then gives
# "probabilities" of up to 26. The others of its trees fail, or cannot be told from those.
_TREE_TYPES = ("sklearn.tree.", "sklearn.ensemble._forest.", "sklearn.ensemble._gb.", "sklearn.ensemble._hist_")
_TREES_NOT_READABLE_FROM = "1.3."


def _check_libraries(case: _Case) -> str:
    for kind, version in sorted(case.contents.writers):
        if version.startswith(_TREES_NOT_READABLE_FROM) and kind.startswith(_TREE_TYPES):
            raise ModelRejected(
                "libraries",
                "trees_of_another_version",
                f"Trees that scikit-learn {version} wrote are read wrongly by {sklearn.__version__}; train them again.",
            )
    others = sorted({version for _, version in case.contents.writers} - {sklearn.__version__})
    if not others:
        return f"scikit-learn {sklearn.__version__}"
    # A real model is of one version, or of two when it was put together.
    written_by = ", ".join(others[:3])
    case.library_mismatch = {"scikit-learn": written_by}
    return f"written by scikit-learn {written_by}, served by {sklearn.__version__}"


def _check_shape(case: _Case) -> str:
    # Raises for parts that contain each other, which the questions below would follow for ever.
    structure.parts_of(case.contents.model)
    with _refusing("shape", "incomplete"):
        estimator, names_beside = shape.estimator_in(case.contents.model)
        case.shape = Shape(
            columns=shape.columns_of(estimator, names_beside),
            classes=shape.classes_of(estimator),
            has_probabilities=hasattr(estimator, "predict_proba"),
        )
        shape.make_servable(estimator)
    case.estimator = estimator
    return f"{type(estimator).__name__}, {_described(case.known_shape)}"


def _described(found: Shape) -> str:
    order = "in the published order" if found.columns is None else "in an order of its own"
    answer = "a number" if found.classes is None else f"one of {len(found.classes)} classes"
    return f"takes {FEATURE_COUNT} features {order}, gives {answer}"


def _check_structure(case: _Case) -> str:
    structure.check_structure(case.estimator)
    return "every index is in its array"


# What it answers ------------------------------------------------------------------------------------------------------


def _check_probes(case: _Case) -> str:
    if case.tried:
        return _KNOWN
    with _refusing("probes", "malformed_answer"):
        probes.check_probes(case.estimator, case.known_shape)
    return f"{len(probes.probe_rows())} wines answered"


def _check_golden(case: _Case) -> str:
    if case.tried:
        return _KNOWN
    if case.card is None:
        return "no card"
    with _refusing("golden", "malformed_answer"):
        probes.check_golden(case.estimator, case.known_shape, case.card)
    return f"{len(case.card.golden.inputs)} rows exact"


@contextlib.contextmanager
def _refusing(gate: str, reason: str) -> Iterator[None]:
    """Turn whatever a model raises into a refusal by *gate*: its attributes are whatever the file holds."""
    try:
        yield
    except (ModelRejected, MemoryError):
        raise
    except Exception as error:
        raise ModelRejected(gate, reason, f"The model is not complete: {type(error).__name__}.") from error


GATES: Mapping[str, Gate] = {
    "size": _check_size,
    "digest": _check_digest,
    "signature": _check_signature,
    "card": _check_card,
    "trial": _check_trial,
    "unpickling": _check_unpickling,
    "libraries": _check_libraries,
    "shape": _check_shape,
    "structure": _check_structure,
    "probes": _check_probes,
    "golden": _check_golden,
}
