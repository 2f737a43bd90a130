"""How the bytes of a model reach this host's disk: bounded, whole and durable."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wine_api.errors import ModelRejected, ModelStoreUnavailable
from wine_api.serving.stores.base import CARD_NAME, StoredModel

# A card holds eleven histograms and a few golden rows: some 50 KB.
COMPANION_MAX_BYTES = 1024 * 1024


def refuse_larger(model: StoredModel, max_bytes: int) -> None:
    """Raise `ModelRejected` when *model* is larger than *max_bytes*."""
    if model.size > max_bytes:
        raise ModelRejected(
            "size", "too_large", f"The model has {model.size} bytes, more than the {max_bytes} that are allowed."
        )


def join_companion(chunks: Iterable[bytes], name: str) -> bytes:
    """Return a card or a signature in one piece; one that is too large raises `ModelRejected`."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > COMPANION_MAX_BYTES:
            gate = "card" if name == CARD_NAME else "signature"
            raise ModelRejected(gate, "too_large", f"The file {name} has more than {COMPANION_MAX_BYTES} bytes.")
    return bytes(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Create *path*. It is on the disk when the block ends well, and gone when it does not."""
    with disk_errors():
        file = path.open("xb")
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def copy(chunks: Iterable[bytes], file: BinaryIO, *, size: int, deadline: float) -> None:
    """Write *chunks*, which must amount to *size* bytes, to *file*."""
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if received > size:
            raise replaced()
        if time.monotonic() > deadline:
            raise ModelStoreUnavailable("timeout", "The model did not arrive in time.")
        with disk_errors():
            file.write(chunk)
    if received < size:
        raise ModelStoreUnavailable("truncated", "The model did not arrive whole.")


def replaced() -> ModelStoreUnavailable:
    """Return the error for a model that is no longer the one that was looked at: look again."""
    return ModelStoreUnavailable("replaced", "The model was replaced while it was read.")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Name the trouble of this host's own disk, which is not the store's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelStoreUnavailable("disk_full", "The disk that the model is written to is full.") from error
        raise ModelStoreUnavailable("disk_error", "The model cannot be written to disk.") from error
