"""From a model file on disk to a model that can answer."""

from __future__ import annotations

import ctypes
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

from wine_api.errors import ModelNotChecked
from wine_api.serving import files, gates
from wine_api.serving.artifact import Artifact
from wine_api.serving.engines.choice import choose_engine
from wine_api.serving.holder import LoadedModel
from wine_api.serving.trial import SpawnedTrial, TrialUnavailable, verdict_key

logger = logging.getLogger(__name__)

_VERDICT_NAME = "verdict.json"
_LEAST_TRIAL_SECONDS = 5.0  # a slow download is no reason to call a model slow
# What the answers of the bundled model may depend on.
_LIBRARIES_OF_ANSWERS = ("scikit-learn", "numpy")


@dataclass(frozen=True, slots=True)
class _Upload:
    """What decides whether two artifacts are the same model: the same bytes may come with another card."""

    digest: str
    card_text: bytes | None
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is known of an artifact from before, with these very versions of everything.

    *tried*: it passed its trial in a process of its own. *proven*: its engine agreed with scikit-learn.
    """

    tried: bool
    proven: bool


class ModelLoader:
    """Vets artifacts and gives them an engine.

    The last two models stay in memory: to go back to the one before costs nothing.
    """

    def __init__(self, policy: gates.Policy) -> None:
        self._policy = policy
        self._loaded: dict[_Upload, LoadedModel] = {}

    def load(self, artifact: Artifact, deadline: float, *, survived: Callable[[], None] | None = None) -> LoadedModel:
        """Return *artifact* ready to answer; its trial may last until *deadline*, a `time.monotonic()` value.

        *survived* is called as soon as the trial is passed, or known to have been: from then on other processes can
        load the same artifact without one. Raises `ModelRejected` with the gate that refused it, or `ModelNotChecked`
        when this host cannot check it now.
        """
        survived = survived or _nobody_asks
        started = time.perf_counter()
        upload = _Upload(artifact.digest, artifact.card_text, artifact.signature)
        model = self._loaded.pop(upload, None)
        if model is None:
            # Never three at a time: the one before the last goes before the next comes.
            self._keep_last(1)
            model = self._load(artifact, deadline, survived)
            _give_memory_back()
        else:
            survived()
        self._loaded[upload] = model
        self._keep_last(2)
        return replace(
            model,
            version=artifact.version,
            identity=artifact.identity,
            source=artifact.source,
            loaded_at=datetime.now(UTC),
            load_ms=round(1000 * (time.perf_counter() - started), 3),
        )

    def _keep_last(self, count: int) -> None:
        for upload in list(self._loaded)[:-count]:
            self._loaded.pop(upload, None)

    def _load(self, artifact: Artifact, deadline: float, survived: Callable[[], None]) -> LoadedModel:
        verdict = _known_of(artifact)
        vetted = self._vet(artifact, verdict, deadline, survived)
        engine, engine_reason = choose_engine(vetted, proven=verdict.proven)
        _remember(artifact, _Verdict(tried=True, proven=engine_reason is None))
        return LoadedModel(
            version=artifact.version,
            digest=artifact.digest,
            identity=artifact.identity,
            source=artifact.source,
            card=vetted.card,
            engine=engine,
            engine_reason=engine_reason,
            classes=vetted.classes,
            library_mismatch=vetted.library_mismatch,
            loaded_at=datetime.now(UTC),
            load_ms=0.0,
        )

    def _vet(
        self, artifact: Artifact, verdict: _Verdict, deadline: float, survived: Callable[[], None]
    ) -> gates.VettedModel:
        candidate = gates.Candidate(artifact.path, artifact.digest, artifact.card_text, artifact.signature)
        trial = SpawnedTrial(max(_LEAST_TRIAL_SECONDS, deadline - time.monotonic()))

        def try_first(candidate: gates.Candidate, policy: gates.Policy) -> None:
            trial(candidate, policy)
            _remember(artifact, _Verdict(tried=True, proven=False))
            survived()

        if verdict.tried:
            survived()
        try:
            return gates.vet(candidate, self._policy, trial=None if verdict.tried else try_first, tried=verdict.tried)
        except (TrialUnavailable, OSError) as error:
            logger.exception("model not checked")
            raise ModelNotChecked("This host cannot check the model now; the log has the details.") from error


def _nobody_asks() -> None:
    pass


def _give_memory_back() -> None:
    """Return to the system what a load has freed: four times what the model keeps, which malloc holds on to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library
    if trim is not None:
        trim(0)


# What is known from before --------------------------------------------------------------------------------------------


def _known_of(artifact: Artifact) -> _Verdict:
    """Return what earlier loads found out about *artifact*: a trial takes as long as importing scikit-learn."""
    if artifact.source.get("kind") == "bundled" and _is_as_trained(artifact):
        # Part of the package, like the code; the tests of the package are its trial.
        return _Verdict(tried=True, proven=True)
    known = files.read_json(_verdict_path(artifact))
    if not isinstance(known, dict) or known.get("key") != verdict_key(artifact.digest):
        return _Verdict(tried=False, proven=False)
    return _Verdict(tried=known.get("tried") is True, proven=known.get("proven") is True)


def _is_as_trained(artifact: Artifact) -> bool:
    """Whether the libraries here are those that wrote *artifact*."""
    written_by = json.loads(artifact.card_text or b"{}").get("libraries", {})
    return all(written_by.get(name) == installed_version(name) for name in _LIBRARIES_OF_ANSWERS)


def _remember(artifact: Artifact, verdict: _Verdict) -> None:
    document = {"key": verdict_key(artifact.digest), **asdict(verdict)}
    path = _verdict_path(artifact)
    try:
        if files.read_json(path) != document:
            files.write_json(path, document)
    except OSError:  # a full disk; the next load tries the model again
        logger.exception("verdict not remembered")


def _verdict_path(artifact: Artifact) -> Path:
    return artifact.path.with_name(_VERDICT_NAME)
