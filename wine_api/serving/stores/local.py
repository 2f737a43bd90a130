"""The local store: a folder used like a bucket, with the same keys."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from wine_api.errors import ModelStoreUnavailable, ModelVersionNotFound, WineError
from wine_api.serving.stores.base import (
    ARTIFACT_NAME,
    CARD_NAME,
    SIGNATURE_NAME,
    VERSIONS_PREFIX,
    StoredModel,
    VersionExists,
    is_version_name,
    natural_order,
    newest_first,
    require_version_name,
    version_key,
    version_of,
)
from wine_api.serving.stores.transfer import copy, join_companion, new_file, refuse_larger, replaced

CHUNK_BYTES = 1024 * 1024

# Two writes within one tick of the file system's clock leave the same times, so a file that has only just changed
# is read at every look.
SETTLED_AFTER_NS = 2_000_000_000

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

T = TypeVar("T")


class LocalStore:
    """Models in a folder.

    The ETag of a file is its SHA-256, which is also how the file under `MODEL_KEY` finds its version: it is the one
    whose card, or whose artifact where there is no card, has that digest. Links are followed as long as they stay
    inside *folder*; a link that leads out of it is as good as absent, so that nobody is served a file that was never
    put into the store.
    """

    def __init__(self, folder: Path, *, model_key: str, kind: str = "local") -> None:
        self.kind = kind
        self._folder = folder.absolute()
        self._model_key = model_key
        self._digests = Memory(_digest)
        self._named_digests = Memory(_digest_named_by_card)

    def location(self, model: StoredModel) -> dict[str, str | None]:
        """Say where *model* is. The folder is this machine's business and not shown."""
        return {"kind": self.kind, "bucket": None, "key": model.key, "version_id": None}

    def latest(self) -> StoredModel:
        """Look at the artifact under `MODEL_KEY`; its bytes are read again only when the file has changed."""
        return self._look(self._model_key)

    def find(self, version: str) -> StoredModel:
        """Look up *version*: the name of a version folder, or of what is under `MODEL_KEY`."""
        if is_version_name(version):
            with suppress(ModelVersionNotFound):
                return self._look(version_key(version))
        with suppress(ModelVersionNotFound):
            if (model := self.latest()).version == version:
                return model
        raise ModelVersionNotFound("The store has no such model version.")

    def versions(self) -> list[StoredModel]:
        """List the published versions, newest first."""
        found = []
        for version in self._version_names():
            with suppress(ModelVersionNotFound):
                found.append(self._look(version_key(version)))
        return newest_first(found)

    def download(self, model: StoredModel, destination: Path, *, max_bytes: int, deadline: float) -> None:
        """Write the bytes of exactly *model* to *destination* (see `ModelStore.download`)."""
        refuse_larger(model, max_bytes)
        with self._reading(model.key) as source, new_file(destination) as file:
            copy(_chunks(source, digest=model.etag), file, size=model.size, deadline=deadline)

    def card(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the model's card, or None where it has none."""
        return self._companion(model, CARD_NAME)

    def signature(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the card's signature, or None where it has none."""
        return self._companion(model, SIGNATURE_NAME)

    def put_version(
        self,
        version: str,
        artifact: Path,
        card: bytes | None,
        signature: bytes | None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Publish *version*: its folder appears whole, by one rename (see `PublishingStore.put_version`)."""
        require_version_name(version)
        folder = self._writable(version_key(version)).parent
        if os.path.lexists(folder):
            raise VersionExists(f"The version {version} exists already, and versions never change.")
        with _our_words(), _temporary_folder_beside(folder) as staged:
            _write(staged / ARTIFACT_NAME, _read(artifact, progress))
            if card is not None:
                _write(staged / CARD_NAME, [card])
            if signature is not None:
                _write(staged / SIGNATURE_NAME, [signature])
            _sync(staged)
            _rename_once(staged, folder)
            _sync(folder.parent)

    def promote(self, version: str) -> StoredModel:
        """Copy the artifact of *version* onto `MODEL_KEY`, by one rename."""
        if not is_version_name(version):
            raise ModelVersionNotFound("The store has no such model version.")
        model = self._look(version_key(version))
        if version_of(self._model_key) is not None:
            raise VersionExists("MODEL_KEY is itself a published version, and versions never change.")
        target = self._writable(self._model_key)
        staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        self.download(model, staged, max_bytes=model.size, deadline=math.inf)
        with _our_words():
            staged.replace(target)
            _sync(target.parent)
        return self.latest()

    def _look(self, key: str) -> StoredModel:
        with self._reading(key) as file:
            digest = self._digests.of(key, file)
            status = os.fstat(file.fileno())
        return StoredModel(
            key=key,
            version=version_of(key) or self._version_with(digest),
            etag=digest,
            version_id=None,
            size=status.st_size,
            modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
        )

    def _version_with(self, digest: str) -> str | None:
        """Return the version of the artifact with *digest*; of several, the one with the highest number."""
        names = [version for version in self._version_names() if self._digest_named_in(version) == digest]
        return max(names, key=natural_order, default=None)

    def _digest_named_in(self, version: str) -> str | None:
        key = version_key(version, CARD_NAME)
        try:
            with self._reading(key) as file:
                return self._named_digests.of(key, file)
        except ModelVersionNotFound:
            return self._digest_of(version)
        except WineError:  # one bad card must not hide what lies under MODEL_KEY
            return None

    def _digest_of(self, version: str) -> str | None:
        with suppress(WineError), self._reading(version_key(version)) as file:
            return self._digests.of(version_key(version), file)
        return None

    def _version_names(self) -> list[str]:
        with _our_words():
            try:
                return [name for name in os.listdir(self._root() / VERSIONS_PREFIX) if is_version_name(name)]
            except FileNotFoundError:
                return []

    def _companion(self, model: StoredModel, name: str) -> bytes | None:
        if model.published_as is None:
            return None
        try:
            with self._reading(version_key(model.published_as, name)) as file:
                return join_companion(_pieces(file), name)
        except ModelVersionNotFound:
            return None

    @contextmanager
    def _reading(self, key: str) -> Iterator[BufferedReader]:
        """Open the file under *key* and keep saying in our words what fails until it is closed."""
        root = self._root()
        with _our_words():
            path = Path(os.path.realpath(root / key, strict=True))
            if not path.is_relative_to(root):
                raise ModelVersionNotFound(f"The store has nothing under {key}.")
            with open(path, "rb", opener=_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ModelVersionNotFound(f"The store has nothing under {key}.")
                yield file

    def _root(self) -> Path:
        """Return the folder itself; looked up each time, as a link to it may be moved to a new folder."""
        root = Path(os.path.realpath(self._folder))
        with _our_words():
            if not _is_folder(root):
                raise ModelStoreUnavailable("missing_folder", "The folder of the models does not exist.")
        return root

    def _writable(self, key: str) -> Path:
        """Return the path of *key*, in a folder that exists and to which no link leads.

        A link from `models/latest` to a version's folder is fine for reading, but writing through it would change
        that version.
        """
        root = self._root()
        path = root / key
        folder = path.parent.parent if version_of(key) else path.parent
        with _our_words():
            if Path(os.path.realpath(folder)) != folder or not folder.is_relative_to(root):
                raise ModelStoreUnavailable("forbidden", f"{key} leads elsewhere, and links are never written through.")
            folder.mkdir(parents=True, exist_ok=True)
        return path


class Memory(Generic[T]):
    """What *read* made of each file; a file is read again only when it has changed."""

    def __init__(self, read: Callable[[BufferedReader], T]) -> None:
        self._read = read
        self._known: dict[str, tuple[_Stamp, T]] = {}

    def of(self, key: str, file: BufferedReader) -> T:
        """Return what is known of *file*, which lies under *key*."""
        stamp = _stamp(file)
        known = self._known.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        value = self._read(file)
        if _stamp(file) == stamp and time.time_ns() - stamp.changed_ns > SETTLED_AFTER_NS:
            self._known[key] = (stamp, value)
        return value


class _Stamp(NamedTuple):
    """What differs when a file was replaced or written to."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int  # a copy may keep the time of modification, but nobody can set this one


def _stamp(file: BufferedReader) -> _Stamp:
    status = os.fstat(file.fileno())
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_named_by_card(file: BufferedReader) -> str | None:
    """Return the digest that a card names. Whether the card is a good one is decided where it is used."""
    try:
        return str(json.loads(join_companion(_pieces(file), CARD_NAME))["artifact"]["sha256"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _chunks(source: BufferedReader, *, digest: str) -> Iterator[bytes]:
    """Yield the bytes of *source*, and complain at the end unless they have that *digest*."""
    seen = hashlib.sha256()
    for chunk in _pieces(source):
        seen.update(chunk)
        yield chunk
    if seen.hexdigest() != digest:
        raise replaced()


def _pieces(file: BufferedReader) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK_BYTES), b"")


def _read(path: Path, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        for chunk in _pieces(file):
            yield chunk
            if progress is not None:
                progress(len(chunk))


def _write(path: Path, chunks: Iterator[bytes] | list[bytes]) -> None:
    with new_file(path) as file:
        file.writelines(chunks)


def _is_folder(path: Path) -> bool:
    # Unlike Path.is_dir(), this does not take a folder that denies access for a missing one.
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for its writer.
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def _temporary_folder_beside(folder: Path) -> Iterator[Path]:
    staged = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _rename_once(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise VersionExists(f"The version {folder.name} exists already, and versions never change.") from error
        raise


def _sync(folder: Path) -> None:
    """Make the names in *folder* survive a power cut, as the files themselves already do."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _our_words() -> Iterator[None]:
    """Say what the file system complains of without naming a path of this machine."""
    try:
        yield
    except OSError as error:
        if error.errno in _ABSENT:
            raise ModelVersionNotFound("The store has no such model.") from error
        if error.errno in _FORBIDDEN:
            raise ModelStoreUnavailable("forbidden", "The folder of the models denies access.") from error
        raise ModelStoreUnavailable("io_error", "The folder of the models cannot be read.") from error
