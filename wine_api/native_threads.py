"""How many threads the numeric libraries may use. Imports none of them: they read their limits when imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from wine_api.config import InvalidSetting, Settings

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def limit() -> None:
    """Give the numeric libraries of each worker its share of the processors.

    Each library would start a thread a processor in every worker. A limit that the operator has set stays.
    """
    try:
        workers = Settings.from_environ().web_concurrency
    except InvalidSetting:  # the start stops right after this, with the words for it
        return
    share = max(1, int(processors() / workers))
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(share))


def threads() -> int | None:
    """Return how many threads a worker may compute with, or None if nobody limits them."""
    told = os.environ.get(_VARIABLES[0], "")
    return int(told) if told.isdecimal() else None


def processors(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float:
    """Return how many processors this process may use: those it may run on, or its quota where that is less.

    A container that is limited to 0.5 processors sees all of its host's.
    """
    return min([float(len(os.sched_getaffinity(0))), *_quotas(cgroups, membership)])


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas of the control groups that this process is in, of both versions of them (see cgroups(7))."""
    for line in _text(membership).splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            for folder in _with_parents(cgroups, group):
                quota, _, period = _text(folder / "cpu.max").partition(" ")
                yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _with_parents(cgroups / "cpu", group):
                yield from _quota(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _with_parents(root: Path, group: str) -> Iterator[Path]:
    folder = root / group.strip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _quota(quota: str, period: str) -> Iterator[float]:
    """Yield *quota* by *period*, both in microseconds, unless it is no number: `max`, -1, or nothing at all."""
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
