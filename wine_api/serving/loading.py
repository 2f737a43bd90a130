"""From a model file on disk to a model that can answer."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from wine_api.errors import ModelNotChecked
from wine_api.serving import files, gates
from wine_api.serving.artifact import Artifact
from wine_api.serving.engines.sklearn import SklearnEngine
from wine_api.serving.holder import LoadedModel
from wine_api.serving.trial import SpawnedTrial, TrialUnavailable, verdict_key

logger = logging.getLogger(__name__)

_VERDICT_NAME = "verdict.json"
_LEAST_TRIAL_SECONDS = 5.0  # a slow download is no reason to call a model slow


class ModelLoader:
    """Vets artifacts and gives them an engine."""

    def __init__(self, policy: gates.Policy) -> None:
        self._policy = policy

    def load(self, artifact: Artifact, deadline: float) -> LoadedModel:
        """Return *artifact* ready to answer; its trial may last until *deadline*, a `time.monotonic()` value.

        Raises `ModelRejected` with the gate that refused it, or `ModelNotChecked` when this host cannot check it now.
        """
        started = time.perf_counter()
        candidate = gates.Candidate(artifact.path, artifact.digest, artifact.card_text, artifact.signature)
        tried = _was_tried(artifact)
        trial = None if tried else SpawnedTrial(max(_LEAST_TRIAL_SECONDS, deadline - time.monotonic()))
        try:
            vetted = gates.vet(candidate, self._policy, trial=trial)
        except (TrialUnavailable, OSError) as error:
            logger.exception("model not checked")
            raise ModelNotChecked("This host cannot check the model now; the log has the details.") from error
        if not tried:
            _remember_tried(artifact)
        return LoadedModel(
            version=artifact.version,
            digest=artifact.digest,
            identity=artifact.identity,
            source=artifact.source,
            card=vetted.card,
            engine=SklearnEngine(
                vetted.estimator,
                columns=vetted.columns,
                classes=vetted.classes,
                probabilities=vetted.has_probabilities,
            ),
            classes=vetted.classes,
            library_mismatch=vetted.library_mismatch,
            loaded_at=datetime.now(UTC),
            load_ms=round(1000 * (time.perf_counter() - started), 3),
        )


def _was_tried(artifact: Artifact) -> bool:
    """Whether *artifact* passed its trial in a process of its own before, with these versions of everything.

    The trial takes as long as importing scikit-learn. The bundled model is part of the package, like the code.
    """
    if artifact.source.get("kind") == "bundled":
        return True
    return files.read_json(artifact.path.with_name(_VERDICT_NAME)) == {"passed": verdict_key(artifact.digest)}


def _remember_tried(artifact: Artifact) -> None:
    try:
        files.write_json(artifact.path.with_name(_VERDICT_NAME), {"passed": verdict_key(artifact.digest)})
    except OSError:  # a full disk; the next load tries the model again
        logger.exception("verdict not remembered")
