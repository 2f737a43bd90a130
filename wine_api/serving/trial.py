"""Tries a model in a process of its own, where it may crash, hang or eat memory without harm to anybody.

The process is started with a command line of its own (`python -m wine_api.serving.trial`), never forked: a fork of a
worker copies the locks that its other threads hold. It gets no secret: not the environment, not an open file. The
parent watches the clock; the child bounds its memory, and goes by itself if the parent is gone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import resource
import signal
import subprocess  # nosec B404
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wine_api
from wine_api.errors import ModelRejected

if TYPE_CHECKING:
    # Importing scikit-learn is most of the cost of a trial, and must come after the limits: see main.
    from wine_api.serving.gates import Candidate, Policy

GATE = "trial"
LIBRARIES = ("scikit-learn", "numpy", "scipy", "joblib")

# What an interpreter with scikit-learn reserves (0.6 GB), and some air.
_BASE_MEMORY_BYTES = 1024**3
# A model is there as it was read, as it was copied into trees, and in part as what it predicts.
_COPIES = 3
# More than any codec makes of a real model.
_MOST_COMPRESSED = 20
_READY = b"ready"
_KEPT_STDERR_BYTES = 2000
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "TZ")

logger = logging.getLogger(__name__)


class TrialUnavailable(RuntimeError):
    """The trial could not be held: it says nothing about the model."""


def verdict_key(digest: str) -> str:
    """Return the name under which the verdict on the artifact of *digest* may be kept.

    It changes with the service and the libraries: what they do with the same file may change with them.
    """
    parts = [wine_api.__version__, platform.python_version(), *(version(library) for library in LIBRARIES)]
    return f"{digest}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class SpawnedTrial:
    """Holds trials that may take *seconds* each, and *memory_bytes*, or what the file's size calls for."""

    seconds: float = 60.0
    memory_bytes: int | None = None

    def __call__(self, candidate: Candidate, policy: Policy) -> None:
        """Raise `ModelRejected` unless the model passes its gates in a new process."""
        memory = self.memory_bytes or _memory_for(candidate, policy)
        outcome = _run(_request(candidate, policy, memory, self.seconds), self.seconds)
        _judge(outcome)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the process ended. *status* is None when it had to be killed."""

    status: int | None
    lines: list[bytes]
    stderr: bytes


def _memory_for(candidate: Candidate, policy: Policy) -> int:
    unpacked = min(policy.max_bytes, _MOST_COMPRESSED * candidate.path.stat().st_size)
    return _BASE_MEMORY_BYTES + _COPIES * unpacked


def _request(candidate: Candidate, policy: Policy, memory_bytes: int, seconds: float) -> bytes:
    # Without keys and signature: who signed was settled before, over the same bytes of the card.
    document = {
        "path": str(candidate.path.resolve()),
        "digest": candidate.digest,
        "card": None if candidate.card is None else base64.b64encode(candidate.card).decode("ascii"),
        "max_bytes": policy.max_bytes,
        "allowed_types": sorted(policy.allowed_types),
        "memory_bytes": memory_bytes,
        "seconds": seconds,
    }
    return json.dumps(document).encode("ascii")


def _run(request: bytes, seconds: float) -> _Outcome:
    try:
        process = subprocess.Popen(  # nosec B603
            [sys.executable, "-P", "-B", "-m", "wine_api.serving.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise TrialUnavailable(f"The trial of the model could not be started ({type(error).__name__}).") from error
    try:
        stdout, stderr = process.communicate(request, timeout=seconds)
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        _kill_group(process)
        stdout, stderr = process.communicate()
        status = None
    except BaseException:
        _kill_group(process)
        process.wait()
        raise
    return _Outcome(status, stdout.splitlines(), stderr[-_KEPT_STDERR_BYTES:])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # It leads its session: whatever it may have started goes with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what of our environment the child may know: how to find Python and us, and nothing that is secret."""
    kept = {name: inherited[name] for name in _INHERITED if name in inherited}
    ours = str(Path(wine_api.__file__).resolve().parents[1])
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [ours, kept.get("PYTHONPATH")])),
        # Each thread of a BLAS reserves memory, which is limited, and takes a processor, which others need.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _judge(outcome: _Outcome) -> None:
    """Raise what the *outcome* of a trial means, or return if the model passed."""
    ready = bool(outcome.lines) and outcome.lines[0] == _READY
    if not ready:
        logger.error("model trial did not start", extra={"status": outcome.status, "stderr": _text(outcome.stderr)})
        raise TrialUnavailable(f"The trial of the model did not start (status {outcome.status}).")
    if outcome.status is None or outcome.status == -signal.SIGALRM:
        raise ModelRejected(GATE, "trial_timeout", "The model took too long to be tried.")
    if outcome.status == -signal.SIGKILL:
        raise ModelRejected(GATE, "trial_out_of_memory", "The model took too much memory when it was tried.")
    verdict = _verdict(outcome)
    if verdict is None:
        logger.warning("model trial crashed", extra={"status": outcome.status, "stderr": _text(outcome.stderr)})
        raise ModelRejected(GATE, "trial_crashed", f"The model crashed the process that tried it{_by(outcome)}.")
    if not verdict["passed"]:
        raise ModelRejected(verdict["gate"], verdict["reason"], verdict["detail"])


def _verdict(outcome: _Outcome) -> dict[str, Any] | None:
    if outcome.status != 0 or len(outcome.lines) != 2:
        return None
    try:
        verdict: dict[str, Any] = json.loads(outcome.lines[1])
    except ValueError:
        return None
    return verdict


def _by(outcome: _Outcome) -> str:
    with contextlib.suppress(ValueError, TypeError):
        return f" ({signal.Signals(-(outcome.status or 0)).name})"
    return ""


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")


# The child ------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Try the model that standard input names, and write the verdict to standard output."""
    verdicts = _take_stdout()
    request = json.loads(sys.stdin.buffer.read())
    _limit(request["memory_bytes"], request["seconds"])
    try:
        # After the limits, so that they hold for all that follows.
        from wine_api.serving import gates

        verdicts.write(_READY + b"\n")
        verdict = _tried(gates.vet, _candidate(gates.Candidate, request), _policy(gates.Policy, request))
    except MemoryError:
        verdict = _out_of_memory()
    verdicts.write(json.dumps(verdict).encode("ascii") + b"\n")
    verdicts.flush()
    # Without the clean-up of the interpreter: what it would free is a model that is not trusted.
    os._exit(0)


def _take_stdout() -> Any:
    """Keep standard output for the verdict, and send what anything else prints to standard error."""
    kept = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return kept


def _limit(memory_bytes: int, seconds: float) -> None:
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        resource.setrlimit(limit, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No file of any size can be written. Pipes are not files.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # For a parent that was killed. The default action ends the process also where Python's handlers never run.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds) + 1)
    # The workers answer requests meanwhile.
    os.nice(5)


def _candidate(kind: type[Candidate], request: dict[str, Any]) -> Candidate:
    card = request["card"]
    return kind(
        path=Path(request["path"]),
        digest=request["digest"],
        card=None if card is None else base64.b64decode(card),
    )


def _policy(kind: type[Policy], request: dict[str, Any]) -> Policy:
    return kind(max_bytes=request["max_bytes"], allowed_types=frozenset(request["allowed_types"]))


def _tried(vet: Any, candidate: Candidate, policy: Policy) -> dict[str, Any]:
    try:
        vet(candidate, policy)
    except ModelRejected as error:
        if error.reason == "out_of_memory":
            return _out_of_memory()
        return {"passed": False, "gate": error.gate, "reason": error.reason, "detail": error.detail}
    return {"passed": True}


def _out_of_memory() -> dict[str, Any]:
    return {
        "passed": False,
        "gate": GATE,
        "reason": "trial_out_of_memory",
        "detail": "The model took too much memory when it was tried.",
    }


if __name__ == "__main__":
    main()
