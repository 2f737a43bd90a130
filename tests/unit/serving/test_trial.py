"""A model is tried in a process of its own; whatever it does there, this process only learns of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving import crafted
from wine_api.errors import ModelRejected
from wine_api.serving import trial
from wine_api.serving.gates import Candidate, Policy, vet
from wine_api.serving.trial import SpawnedTrial, TrialUnavailable, verdict_key

POLICY = Policy(max_bytes=16 * 1024 * 1024)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return crafted.dumped(crafted.fitted("scaled forest"), tmp_path / "model.joblib")


def refusal(outcome: trial._Outcome) -> tuple[str, str]:
    with pytest.raises(ModelRejected) as refused:
        trial._judge(outcome)
    return refused.value.gate, refused.value.reason


def outcome(status: int | None, *lines: Any) -> trial._Outcome:
    return trial._Outcome(status, [b"ready", *(json.dumps(line).encode() for line in lines)], b"")


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let the trial run *program* where it would run itself, after the line that says that it is ready."""
    spawn = trial.subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return spawn([sys.executable, "-S", "-c", "print('ready', flush=True)\n" + program], **options)

    monkeypatch.setattr(trial.subprocess, "Popen", popen)


class TestProcess:
    def test_honest_model_passes(self, path: Path) -> None:
        SpawnedTrial()(Candidate(path), POLICY)

    def test_refusal_in_the_process_is_the_refusal(self, tmp_path: Path) -> None:
        path = crafted.dumped(crafted.fitted_forest(features=12), tmp_path / "model")

        with pytest.raises(ModelRejected) as refused:
            vet(Candidate(path), POLICY, trial=SpawnedTrial())

        assert (refused.value.gate, refused.value.reason) == ("shape", "wrong_feature_count")

    def test_memory_is_limited(self, tmp_path: Path) -> None:
        path = tmp_path / "model"
        path.write_bytes(crafted.program(b"B" + (2**30).to_bytes(4, "little") + bytes(1000)))

        with pytest.raises(ModelRejected) as refused:
            SpawnedTrial(memory_bytes=1024**3)(Candidate(path), Policy(max_bytes=2**31))

        assert (refused.value.gate, refused.value.reason) == ("trial", "trial_out_of_memory")

    def test_time_is_limited_and_the_process_is_gone(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run_instead(monkeypatch, "import os; open('pid', 'w').write(str(os.getpid()))\nwhile True: pass")
        monkeypatch.chdir(path.parent)

        with pytest.raises(ModelRejected) as refused:
            SpawnedTrial(seconds=0.5)(Candidate(path), POLICY)

        assert refused.value.reason == "trial_timeout"
        with pytest.raises(ProcessLookupError):
            os.kill(int((path.parent / "pid").read_text()), 0)

    def test_crash_is_a_refusal(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run_instead(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

        with pytest.raises(ModelRejected, match="SIGSEGV") as refused:
            SpawnedTrial()(Candidate(path), POLICY)

        assert refused.value.reason == "trial_crashed"

    def test_secrets_stay_here(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("API_KEYS_FILE", "secret")
        monkeypatch.chdir(path.parent)
        run_instead(monkeypatch, "import os; open('names', 'w').write(' '.join(sorted(os.environ)))")

        with pytest.raises(ModelRejected):
            SpawnedTrial()(Candidate(path), POLICY)

        assert set((path.parent / "names").read_text().split()) <= {
            *trial._INHERITED,
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
        }

    def test_what_it_prints_is_not_ours(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run_instead(monkeypatch, "import sys; print('noise', file=sys.stderr); print('noise')")

        with pytest.raises(ModelRejected):
            SpawnedTrial()(Candidate(path), POLICY)

        assert capfd.readouterr() == ("", "")

    def test_process_that_does_not_start_says_nothing_of_the_model(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(trial.sys, "executable", "/bin/false")

        with caplog.at_level(logging.ERROR), pytest.raises(TrialUnavailable):
            SpawnedTrial()(Candidate(path), POLICY)

        assert caplog.messages == ["model trial did not start"]

    def test_process_that_cannot_be_started_says_nothing_of_the_model(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trial.sys, "executable", str(path))

        with pytest.raises(TrialUnavailable):
            SpawnedTrial()(Candidate(path), POLICY)


class TestJudgement:
    def test_pass_is_a_pass(self) -> None:
        trial._judge(outcome(0, {"passed": True}))

    @pytest.mark.parametrize(
        ("ended", "reason"),
        [
            pytest.param(outcome(None), "trial_timeout", id="killed by us"),
            pytest.param(outcome(-signal.SIGALRM), "trial_timeout", id="its own alarm"),
            pytest.param(outcome(-signal.SIGKILL), "trial_out_of_memory", id="killed by the kernel"),
            pytest.param(outcome(-signal.SIGSEGV), "trial_crashed", id="segmentation fault"),
            pytest.param(outcome(-signal.SIGABRT), "trial_crashed", id="abort"),
            pytest.param(outcome(1), "trial_crashed", id="error"),
            pytest.param(outcome(0), "trial_crashed", id="no verdict"),
            pytest.param(outcome(0, {"passed": True}, {}), "trial_crashed", id="two verdicts"),
            pytest.param(trial._Outcome(0, [b"ready", b"{"], b""), "trial_crashed", id="half a verdict"),
        ],
    )
    def test_anything_else_is_a_refusal(self, ended: trial._Outcome, reason: str) -> None:
        assert refusal(ended) == ("trial", reason)


class TestVerdictKey:
    def test_changes_with_the_file_and_the_libraries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = [verdict_key("a" * 64), verdict_key("b" * 64)]
        monkeypatch.setattr(trial, "version", lambda library: "0")
        keys.append(verdict_key("a" * 64))

        assert len(set(keys)) == 3
        assert keys[0] == "a" * 64 + keys[0][64:]

    def test_is_a_file_name(self) -> None:
        assert verdict_key("a" * 64).replace("-", "").isalnum()
