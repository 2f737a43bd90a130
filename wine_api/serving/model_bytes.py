"""The bytes of the pickle in a model file, whatever it is compressed with, and never more of them than allowed."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import numpy as np

from wine_api.serving.rebuilding import Array, refused

# An unpacked stream is read in steps of this many bytes, and counted after each.
STEP_BYTES = 1024 * 1024
_MAX_NAME_BYTES = 512
_LZMA_MEMORY_BYTES = 256 * 1024 * 1024


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflater:
    """zlib's and gzip's decompressor, with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of *file*, at most `STEP_BYTES` at a time."""

    def __init__(self, file: BinaryIO, decompressor: _Decompressor) -> None:
        self._file = file
        self._decompressor = decompressor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decompressor.eof:
            packed = self._file.read(STEP_BYTES // 8) if self._decompressor.needs_input else b""
            ended = not packed and self._decompressor.needs_input
            content = self._decompressor.decompress(packed, min(len(buffer), STEP_BYTES))
            if content:
                buffer[: len(content)] = content
                return len(content)
            if ended and not self._decompressor.eof:
                raise EOFError
        return 0


class Capped(io.RawIOBase):
    """The bytes of *source*, until there are more than *max_bytes* of them."""

    def __init__(self, source: Any, max_bytes: int) -> None:
        self._source = source
        self.left = max_bytes

    def readable(self) -> bool:
        """Tell `io.BufferedReader` that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into *buffer*, or raise `ModelRejected` if they are too many."""
        count: int = self._source.readinto(memoryview(buffer)[:STEP_BYTES])
        self.left -= count
        if self.left < 0:
            raise refused("too_large_when_decompressed", "The model file is too large when it is decompressed.")
        return count


def _lzma() -> _Decompressor:
    # The file names the size of the dictionary to allocate: up to 4 GiB, in a file of 20 bytes.
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)


_COMPRESSIONS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\x78", _Inflater),
    (b"\x1f\x8b", _Inflater),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", _lzma),
    (b"\x5d\x00\x00", _lzma),
)

_REFUSED_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "git_lfs_pointer", "The file is a Git LFS pointer; upload the model that it names."),
    (b"ZF", "legacy_format", "The file was written by joblib 0.9 or older; write it again with a current joblib."),
    (b"ccopy_reg\n", "legacy_format", "The file uses pickle protocol 0; write it again with joblib."),
    (b"ccopyreg\n", "legacy_format", "The file uses pickle protocol 0; write it again with joblib."),
    (b"\x04\x22\x4d\x18", "unsupported_compression", "LZ4 is not supported; use zlib, gzip, bz2, xz or none."),
    (b"\x28\xb5\x2f\xfd", "unsupported_compression", "Zstandard is not supported; use zlib, gzip, bz2, xz or none."),
    (b"PK\x03\x04", "not_a_model_file", "The file is a zip archive, not a model written by joblib or pickle."),
)


def open_pickle(file: BinaryIO, max_bytes: int) -> Capped:
    """Return the pickle in *file*, by what its first bytes say that it is."""
    file.seek(0)
    head = file.read(32)
    file.seek(0)
    if not head:
        raise refused("empty_file", "The model file is empty.")
    for magic, reason, detail in _REFUSED_FILES:
        if head.startswith(magic):
            raise refused(reason, detail)
    if head.startswith(b"\x80"):
        return Capped(file, max_bytes)
    for magic, decompressor in _COMPRESSIONS:
        if head.startswith(magic):
            return Capped(_Decompressed(file, decompressor()), max_bytes)
    raise refused("not_a_model_file", "The file is not a model that joblib or pickle wrote.")


class Stream:
    """The bytes of one pickle, in the units in which it is read. Every read is whole or raises EOFError."""

    def __init__(self, source: Capped, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._buffer = io.BufferedReader(source, STEP_BYTES)
        # One opcode. Bound here, as nothing is called more often.
        self.opcode = self._buffer.read

    def read(self, count: int) -> bytes:
        """Read *count* bytes."""
        # A length comes from the file: nothing is allocated for one that cannot be true.
        if count > self._max_bytes:
            raise EOFError
        content = self._buffer.read(count)
        if len(content) != count:
            raise EOFError
        return content

    def byte(self) -> int:
        """Read a number of one byte."""
        return self.read(1)[0]

    def line(self) -> bytes:
        """Read a line, without its end."""
        line = self._buffer.readline(_MAX_NAME_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        return line[:-1]

    def number(self, layout: struct.Struct) -> Any:
        """Read a number of this *layout*."""
        return layout.unpack(self.read(layout.size))[0]

    def fill(self, array: Array) -> None:
        """Read the content of *array*, which is contiguous."""
        if not array.size:
            return
        view = memoryview(array.view(np.uint8).reshape(-1).data)
        done = 0
        while done < len(view):
            count = self._buffer.readinto(view[done : done + STEP_BYTES])
            if not count:
                raise EOFError
            done += count

    def demand_end(self) -> None:
        """Raise `ModelRejected` if there is more."""
        # Reading on is also what makes gzip and xz compare their checksums.
        if self._buffer.read(1):
            raise refused("trailing_data", "The file goes on after the model: it may hold more than one object.")
