"""What this host remembers of models from one run to the next: which it served, and which it must not take again.

served.json        the digests of the models that were in use, the newest last
quarantine.json    the models that were refused or rolled back, with the reason
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wine_api.serving import files

logger = logging.getLogger(__name__)

_KEPT_SERVED = 5
_KEPT_QUARANTINED = 50


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A model that is not taken again until it changes in the store, or is asked for by name.

    *identity* is the store's (see `StoredModel`). *digest* is None for a file that was refused before it was read.
    *gate* and *reason* say why; a model that was rolled back has the gate `rollback`. *since* is in seconds since the
    epoch.
    """

    identity: str
    version: str
    digest: str | None
    gate: str
    reason: str
    since: float


class Ledger:
    """A folder with two small files, and what could not be written to them.

    A full disk makes this process forget at its end, not now.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unwritten: dict[str, list[Any]] = {}

    # Served

    def served(self) -> list[str]:
        """Return the digests of the models that were in use, the newest last."""
        return [str(digest) for digest in self._read("served.json")]

    def note_served(self, digest: str) -> None:
        """Note that the model with *digest* is in use now."""
        earlier = [other for other in self.served() if other != digest]
        self._write("served.json", [*earlier, digest][-_KEPT_SERVED:])

    def note_left(self, digest: str) -> None:
        """Note that the model with *digest* was left for the one before it."""
        self._write("served.json", [other for other in self.served() if other != digest])

    def before(self, digest: str) -> str | None:
        """Return the digest of the model that was in use before the one with *digest*."""
        served = self.served()
        place = served.index(digest) if digest in served else len(served)
        return served[place - 1] if place > 0 else None

    # Quarantined

    def quarantined(self) -> list[Quarantined]:
        """Return the models in quarantine, the newest last."""
        return [Quarantined(**entry) for entry in self._read("quarantine.json")]

    def find_quarantined(self, identity: str, digest: str | None = None) -> Quarantined | None:
        """Return why the model with *identity*, or with *digest*, must not be taken; None if it may."""
        for entry in reversed(self.quarantined()):
            if entry.identity == identity or (digest is not None and entry.digest == digest):
                return entry
        return None

    def quarantine(self, identity: str, version: str, digest: str | None, *, gate: str, reason: str) -> None:
        """Put a model into quarantine."""
        entry = Quarantined(identity, version, digest, gate, reason, time.time())
        others = [other for other in self.quarantined() if other.identity != identity]
        self._write("quarantine.json", [asdict(kept) for kept in [*others, entry][-_KEPT_QUARANTINED:]])

    def release(self, identity: str, digest: str) -> None:
        """Let a model out of quarantine: it was asked for by name, and passed."""
        kept = [entry for entry in self.quarantined() if entry.identity != identity and entry.digest != digest]
        if len(kept) < len(self.quarantined()):
            self._write("quarantine.json", [asdict(entry) for entry in kept])

    def _read(self, name: str) -> list[Any]:
        if name in self._unwritten:
            return self._unwritten[name]
        found = files.read_json(self._folder / name)
        return found if isinstance(found, list) else []

    def _write(self, name: str, entries: list[Any]) -> None:
        try:
            files.write_json(files.make_private_folder(self._folder) / name, entries)
            self._unwritten.pop(name, None)
        except OSError:
            self._unwritten[name] = entries
            logger.exception("not remembered", extra={"event": "not remembered", "file": name})
