"""How many processors there are for a service that may share its host with others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wine_api import native_threads

HERE = len(os.sched_getaffinity(0))


def host(folder: Path, membership: str, **files: str) -> tuple[Path, Path]:
    """Write the files in which a kernel tells about control groups; `a__b` is `a/b`."""
    for name, text in files.items():
        path = folder / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "membership").write_text(membership)
    return folder / "cgroup", folder / "membership"


@pytest.mark.parametrize(
    ("membership", "files", "processors"),
    [
        ("0::/\n", {"cpu_max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu_max": "max 100000\n"}, HERE),
        ("0::/pod/box\n", {"pod__box__cpu_max": "max 100000\n", "pod__cpu_max": "25000 100000\n"}, 0.25),
        ("4:cpu,cpuacct:/\n", {"cpu__cpu_cfs_quota_us": "75000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 0.75),
        ("4:cpu,cpuacct:/\n", {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, HERE),
        ("0::/gone\n", {}, HERE),
        ("", {}, HERE),
    ],
    ids=["half of one", "no limit", "of the group above", "half, version 1", "no limit, version 1", "no file", "none"],
)
def test_a_quota_counts_where_it_is_less_than_the_processors(tmp_path, membership, files, processors):
    assert native_threads.processors(*host(tmp_path, membership, **files)) == processors


def test_the_numeric_libraries_get_a_workers_share(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    monkeypatch.setattr(native_threads, "processors", lambda: 6.0)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)

    native_threads.limit()

    assert native_threads.threads() == 3
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


def test_a_worker_has_one_thread_at_least_and_what_the_operator_has_set_stays(monkeypatch):
    monkeypatch.setattr(native_threads, "processors", lambda: 0.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)

    native_threads.limit()

    assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("7", "1")
