"""How many threads the numeric libraries may use. Imports none of them: they read their limits when imported."""

from __future__ import annotations

import os

from wine_api.config import InvalidSetting, Settings

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit() -> None:
    """Give the numeric libraries of each worker its share of the processors.

    Each library would start a thread a processor in every worker. A limit that the operator has set stays.
    """
    try:
        workers = Settings.from_environ().web_concurrency
    except InvalidSetting:  # the start stops right after this, with the words for it
        return
    share = max(1, len(os.sched_getaffinity(0)) // workers)
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(share))
