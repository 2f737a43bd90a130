"""From a model file to what the services are served: vetted, uploaded, and only then made the latest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wine_api.errors import ModelNotChecked, ModelRejected, ModelVersionNotFound, WineError
from wine_api.serving import signatures
from wine_api.serving.artifact import ModelCard, sha256_of
from wine_api.serving.engines.choice import choose_engine
from wine_api.serving.gates import GATES, Candidate, Policy, Trial, Verdict, VettedModel, vet
from wine_api.serving.stores.base import (
    ARTIFACT_NAME,
    CARD_NAME,
    SIGNATURE_NAME,
    PublishingStore,
    StoredModel,
    VersionExists,
    version_key,
)
from wine_api.serving.stores.transfer import COMPANION_MAX_BYTES, join_companion
from wine_api.serving.trial import GATE as TRIAL
from wine_api.serving.trial import TrialUnavailable

PARITY = "parity"
PASSED, REFUSED, NOT_RUN = "passed", "refused", "not run"

_CHUNK_BYTES = 1024 * 1024


class CannotPublish(WineError):
    """What was asked for would leave a version that is not whole, or not what it says it is."""

    status, code, title = 409, "cannot_publish", "The version cannot be published"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate came to. *ms* is None where it was not measured by itself."""

    gate: str
    outcome: str
    reason: str | None = None
    detail: str = ""
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A model that passed every gate, and the version that it shall be."""

    version: str
    artifact: Path
    card: bytes | None
    signature: bytes | None
    model: VettedModel


@dataclass(frozen=True, slots=True)
class Move:
    """What `latest` was, None if there was nothing, and what it is now."""

    before: StoredModel | None
    after: StoredModel


# Reading --------------------------------------------------------------------------------------------------------------


def candidate_of(artifact: Path, card: Path | None = None, signature: Path | None = None) -> Candidate:
    """Return *artifact* with its card and signature, which are looked for beside it unless they are named."""
    card = card or artifact.with_name(CARD_NAME)
    signature = signature or card.with_name(f"{card.name}.sig")
    return Candidate(artifact, card=_read(card, CARD_NAME), signature=_read(signature, SIGNATURE_NAME))


def _read(path: Path, name: str) -> bytes | None:
    """Return what *path* holds, or raise `ModelRejected` if no service would read so much."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return join_companion(iter(lambda: file.read(COMPANION_MAX_BYTES), b""), name)


# Verifying ------------------------------------------------------------------------------------------------------------


def examine(candidate: Candidate, policy: Policy, trial: Trial) -> list[GateResult]:
    """Return what every gate says of *candidate*, in their order; after the first that refuses it, none is run.

    The last, parity, refuses nothing: it says which engine answers.
    """
    verdicts: list[Verdict] = []
    parity = GateResult(PARITY, NOT_RUN)
    with suppress(ModelRejected), _checking():
        parity = _parity_of(vet(candidate, policy, trial=trial, report=verdicts.append))
    told = {verdict.gate: _result_of(verdict) for verdict in verdicts}
    if TRIAL not in told and _order(verdicts[-1].gate) > _order(TRIAL):
        told |= _seen_in_the_trial(verdicts[-1])
    return [*(told.get(gate, GateResult(gate, NOT_RUN)) for gate in GATES), parity]


def _parity_of(model: VettedModel) -> GateResult:
    started = time.perf_counter()
    engine, reason = choose_engine(model)
    detail = f"{engine.name} answers, as scikit-learn would" if reason is None else "scikit-learn itself answers"
    return GateResult(PARITY, PASSED, reason, detail, round(1000 * (time.perf_counter() - started), 1))


def _result_of(verdict: Verdict) -> GateResult:
    outcome = PASSED if verdict.passed else REFUSED
    return GateResult(verdict.gate, outcome, verdict.reason, verdict.detail, round(1000 * verdict.seconds, 1))


def _seen_in_the_trial(refusal: Verdict) -> Mapping[str, GateResult]:
    """Tell apart what a trial says as one: it runs the gates that follow it, and this one of them refused."""
    gates = list(GATES)
    before = gates[_order(TRIAL) + 1 : _order(refusal.gate)]
    return {
        TRIAL: GateResult(
            TRIAL,
            REFUSED,
            detail=f"refused by the gate {refusal.gate} in a process of its own",
            ms=round(1000 * refusal.seconds, 1),
        ),
        **{gate: GateResult(gate, PASSED, detail="in the trial") for gate in before},
        refusal.gate: GateResult(refusal.gate, REFUSED, refusal.reason, refusal.detail),
    }


def _order(gate: str) -> int:
    return list(GATES).index(gate)


@contextmanager
def _checking() -> Iterator[None]:
    try:
        yield
    except TrialUnavailable as error:
        raise ModelNotChecked(f"The model cannot be checked on this machine. {error}") from error


# Publishing -----------------------------------------------------------------------------------------------------------


@contextmanager
def vetted_release(
    candidate: Candidate,
    policy: Policy,
    trial: Trial,
    *,
    version: str | None,
    key: Ed25519PrivateKey | None,
    needs_card: bool = True,
) -> Iterator[Release]:
    """Vet *candidate*, signed with *key* if there is one, and give it as the release of *version*.

    The version is the card's, which *version* may only confirm: a card that is changed is not what was trained. The
    release is of a private copy, which lives as long as the block: what was vetted is what is uploaded, whatever
    happens to the file meanwhile.
    """
    if candidate.card is None and (needs_card or version is None):
        raise CannotPublish(
            f"There is no card for {candidate.path}: put its {CARD_NAME} beside it, or name it with --card. To "
            f"publish it without one, name its --version and say --without-card."
        )
    with TemporaryDirectory(prefix="wine-api-publish-") as folder:
        artifact = Path(folder) / ARTIFACT_NAME
        _copy_of_at_most(policy.max_bytes, candidate.path, artifact)
        signature = candidate.signature
        if key is not None and candidate.card is not None:
            signature = signatures.sign(candidate.card, key)
        with _checking():
            model = vet(Candidate(artifact, card=candidate.card, signature=signature), policy, trial=trial)
        yield Release(_version_of(model, version), artifact, candidate.card, signature, model)


def _version_of(model: VettedModel, asked: str | None) -> str:
    if model.card is None:
        assert asked is not None  # noqa: S101  # nosec B101  # asked for before the model was vetted
        return asked
    if asked not in (None, model.card.version):
        raise CannotPublish(f"The card says that this is version {model.card.version}, not {asked}.")
    return model.card.version


def _copy_of_at_most(size: int, source: Path, target: Path) -> None:
    """Copy *source*, but not much more than *size* bytes of it: the first gate refuses what is larger."""
    with source.open("rb") as readable, target.open("xb") as writable:
        while writable.tell() <= size and (chunk := readable.read(_CHUNK_BYTES)):
            writable.write(chunk)


def upload(store: PublishingStore, release: Release, progress: Callable[[int], None] | None = None) -> bool:
    """Put *release* into *store*, where nobody is served it yet; return False when it is there already.

    A version with another model, another card or another signature raises `VersionExists`.
    """
    try:
        store.put_version(release.version, release.artifact, release.card, release.signature, progress)
    except VersionExists:
        with suppress(ModelVersionNotFound):
            if _holds(store, release):
                return False
        raise
    return True


def _holds(store: PublishingStore, release: Release) -> bool:
    """Whether *store* has all of *release*. The card names the digest of the artifact."""
    stored = store.find(release.version)
    return (
        stored.size == release.artifact.stat().st_size
        and store.card(stored) == release.card
        and release.signature in (None, store.signature(stored))
        and (release.card is not None or _digest_of(store, stored) == release.model.digest)
    )


def _digest_of(store: PublishingStore, stored: StoredModel) -> str:
    with TemporaryDirectory(prefix="wine-api-publish-") as folder:
        store.download(stored, Path(folder) / ARTIFACT_NAME, max_bytes=stored.size, deadline=math.inf)
        return sha256_of(Path(folder) / ARTIFACT_NAME)


def promote(store: PublishingStore, version: str, policy: Policy) -> Move:
    """Make *version* the latest, if all of it is there and it is signed as *policy* asks."""
    _require_whole(store, version, policy)
    before = latest_of(store)
    return Move(before, store.promote(version))


def latest_of(store: PublishingStore) -> StoredModel | None:
    """Return what the services are served now, None if there is nothing."""
    with suppress(ModelVersionNotFound):
        return store.latest()
    return None


def _require_whole(store: PublishingStore, version: str, policy: Policy) -> None:
    stored = store.find(version)
    if stored.key != version_key(version):  # `find` also knows the plain upload of that name
        raise ModelVersionNotFound("The store has no such model version.")
    text = store.card(stored)
    if text is not None and ModelCard.parse(text).size != stored.size:
        raise CannotPublish(f"The card of the version {version} belongs to another model file.")
    if policy.public_keys:
        signatures.verify(text, store.signature(stored), policy.public_keys)
