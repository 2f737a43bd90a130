"""Which engine a model gets."""

from __future__ import annotations

import logging

import numpy as np

from wine_api.serving.engines.base import BUILD_FAILED, NOT_COVERED, PARITY_DIFFERS, Engine, arranged
from wine_api.serving.engines.fast import FastEngine
from wine_api.serving.engines.formula import NotCovered
from wine_api.serving.engines.formulas import formula_of
from wine_api.serving.engines.parity import agree
from wine_api.serving.engines.sklearn import SklearnEngine
from wine_api.serving.engines.threshold_rows import threshold_rows
from wine_api.serving.gates import VettedModel
from wine_api.serving.probes import probe_rows
from wine_api.serving.wine import Matrix

logger = logging.getLogger(__name__)

_PARITY_SECONDS = 0.1
_PARITY_ROWS = 2000


def choose_engine(vetted: VettedModel, *, proven: bool = False) -> tuple[Engine, str | None]:
    """Return the fastest engine that answers as scikit-learn does, and None, or why it is scikit-learn itself.

    *proven*: on this very artifact, with these versions of everything, this function returned None before. It then
    builds the same engine again without the proof, which takes most of the time.
    """
    reference = SklearnEngine(
        vetted.estimator, columns=vetted.columns, classes=vetted.classes, probabilities=vetted.has_probabilities
    )
    try:
        formula = formula_of(vetted.estimator)
        engine = FastEngine(formula, columns=vetted.columns, classes=vetted.classes)
        if proven or agree(engine, reference, _trial_wines(vetted), seconds=_PARITY_SECONDS):
            return engine, None
    except NotCovered as reason:
        logger.info("no fast engine", extra={"reason": NOT_COVERED, "detail": str(reason)})
        return reference, NOT_COVERED
    # Whatever an unusual model makes of the code above, scikit-learn has answered for it in the gates.
    except Exception:
        logger.exception("no fast engine", extra={"reason": BUILD_FAILED})
        return reference, BUILD_FAILED
    logger.error("no fast engine", extra={"reason": PARITY_DIFFERS})
    return reference, PARITY_DIFFERS


def _trial_wines(vetted: VettedModel) -> Matrix:
    """Return wines on which an engine must agree: some of each kind first, then those of the card, then all others."""
    probes = probe_rows()
    golden = np.empty((0, vetted.n_features))
    if vetted.card is not None:
        golden = np.asarray(vetted.card.golden.inputs, dtype=np.float64).reshape(-1, vetted.n_features)
    between = _between(probes)
    critical = threshold_rows(
        vetted.estimator, arranged(np.concatenate([probes, golden, between]), vetted.columns), _PARITY_ROWS
    )
    if vetted.columns is not None:
        critical = critical[:, np.argsort(vetted.columns)]
    np.random.default_rng(0).shuffle(critical)
    return np.concatenate([probes[:2], critical[:8], golden, probes[2:], critical[8:], between])


def _between(wines: Matrix) -> Matrix:
    """Return 1000 wines that lie at random between the extremes of *wines*."""
    return np.random.default_rng(0).uniform(wines.min(axis=0), wines.max(axis=0), size=(1000, wines.shape[1]))
