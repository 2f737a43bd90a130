"""Reads a model file without running any code that is in it.

A pickle is a program. This is a machine for the part of its language that model files need: it imports only the names
of allowed_types.txt, calls only what rebuilding.py checks, and stops at anything else. It is used instead of
`joblib.load` and of `pickle.Unpickler` subclasses, because each of them leaves a way around `find_class`: files that
begin with "ZF", pickles nested in arrays of objects, dotted names, the extension registry, BUILD on a class.
"""

from __future__ import annotations

import bz2
import functools
import importlib
import io
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

import numpy as np
import sklearn
from sklearn.base import BaseEstimator

from wine_api.errors import ModelRejected
from wine_api.serving import rebuilding
from wine_api.serving.rebuilding import Array, Budget, Call, damaged, refused, unsafe

# An unpacked stream is read in steps of this many bytes, and counted after each.
STEP_BYTES = 1024 * 1024
# A gradient boosting of 7 classes and 1000 rounds takes 0.9 million steps.
MAX_STEPS = 5_000_000
MAX_NESTED_PICKLES = 16
_MAX_INTEGER_BYTES = 512
_MAX_NAME_BYTES = 512
_LZMA_MEMORY_BYTES = 256 * 1024 * 1024

Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Unpickled:
    """What a model file holds. *writers* are the estimators' types and the scikit-learn versions that wrote them."""

    model: object
    writers: frozenset[tuple[str, str]]


def load(path: Path, *, max_bytes: int, extra_types: frozenset[str] = frozenset()) -> object:
    """Return the object in the model file at *path*.

    *max_bytes* bounds the file after decompression. *extra_types* are further `module.name` entries that it may use.
    Raises `ModelRejected` (gate `unpickling`) for every file that is not a model, or may be more than one.
    """
    return unpickle(path, max_bytes=max_bytes, extra_types=extra_types).model


def unpickle(path: Path, *, max_bytes: int, extra_types: frozenset[str] = frozenset()) -> Unpickled:
    """Do what `load` does, and tell which versions of scikit-learn wrote the estimators."""
    _prove_that_names_are_checked()
    with path.open("rb") as file:
        try:
            return _read(file, max_bytes, _names_in(extra_types))
        except ModelRejected as error:
            if error.reason not in _MAY_BE_THE_VERSION:
                raise
            raise _with_the_writer(error, file, max_bytes) from error


def _read(file: BinaryIO, max_bytes: int, extra: frozenset[Name]) -> Unpickled:
    try:
        stream = _Stream(_open(file, max_bytes), max_bytes)
        names = _Names(extra)
        model = _Machine(stream, names, Budget(MAX_STEPS, 3 * max_bytes)).run()
        stream.demand_end()
    except ModelRejected:
        raise
    except EOFError as error:
        raise refused("truncated", "The model file ends in the middle.") from error
    except MemoryError as error:
        raise refused("out_of_memory", "There is not enough memory for the model.") from error
    except RecursionError as error:
        raise unsafe("is nested too deep") from error
    except (zlib.error, lzma.LZMAError) as error:
        raise damaged("it cannot be decompressed") from error
    # Whatever the bytes are, they are the file's fault: a caller handles one kind of error.
    except Exception as error:
        raise damaged(f"reading it raised {type(error).__name__}") from error
    return Unpickled(model, frozenset(names.writers))


# Opening --------------------------------------------------------------------------------------------------------------


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


class _Capped(io.RawIOBase):
    """The bytes of *source*, until there are more than *max_bytes* of them."""

    def __init__(self, source: Any, max_bytes: int) -> None:
        self._source = source
        self.left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
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


def _open(file: BinaryIO, max_bytes: int) -> _Capped:
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
        return _Capped(file, max_bytes)
    for magic, decompressor in _COMPRESSIONS:
        if head.startswith(magic):
            return _Capped(_Decompressed(file, decompressor()), max_bytes)
    raise refused("not_a_model_file", "The file is not a model that joblib or pickle wrote.")


class _Stream:
    """The bytes of one pickle, in the units in which it is read. Every read is whole or raises EOFError."""

    def __init__(self, source: _Capped, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._buffer = io.BufferedReader(source, STEP_BYTES)
        # One opcode. Bound here, as nothing is called more often.
        self.opcode = self._buffer.read

    def read(self, count: int) -> bytes:
        # A length comes from the file: nothing is allocated for one that cannot be true.
        if count > self._max_bytes:
            raise EOFError
        content = self._buffer.read(count)
        if len(content) != count:
            raise EOFError
        return content

    def byte(self) -> int:
        return self.read(1)[0]

    def line(self) -> bytes:
        line = self._buffer.readline(_MAX_NAME_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        return line[:-1]

    def number(self, layout: struct.Struct) -> Any:
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
        # Reading on is also what makes gzip and xz compare their checksums.
        if self._buffer.read(1):
            raise refused("trailing_data", "The file goes on after the model: it may hold more than one object.")


# Names ----------------------------------------------------------------------------------------------------------------


@functools.cache
def allowed_names() -> frozenset[Name]:
    """Return the names that every model file may use."""
    text = resources.files("wine_api.serving").joinpath("allowed_types.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return _names_in(line for line in lines if line and not line.startswith("#"))


def _names_in(entries: Any) -> frozenset[Name]:
    return frozenset((module, name) for module, _, name in (entry.rpartition(".") for entry in entries))


# What the same thing is called in files of protocol 2, of NumPy 1 and of scikit-learn 1.5 to 1.8.
_RENAMED_MODULES = MappingProxyType({"__builtin__": "builtins", "_loss": "sklearn._loss._loss"})


def _canonical(module: str, name: str) -> Name:
    if module.startswith("numpy.core."):
        module = "numpy._core." + module.removeprefix("numpy.core.")
    return _RENAMED_MODULES.get(module, module), name


class _ArrayHeader:
    """Stands for joblib's NumpyArrayWrapper, after which the bytes of an array follow in the stream."""


class _Names:
    """What one file may import, what it has imported, and who wrote it."""

    def __init__(self, extra: frozenset[Name]) -> None:
        self._extra = extra
        # By identity, as what a file put on the stack need not be hashable.
        self._calls: dict[int, Call] = {}
        self._types: set[type] = set()
        self._operator_chose: set[int] = set()
        self.writers: set[tuple[str, str]] = set()

    def find(self, module: str, name: str) -> object:
        """Import *name* from *module*, if exactly that is allowed."""
        wanted = _canonical(module, name)
        if wanted not in allowed_names() and wanted not in self._extra:
            raise refused("type_not_allowed", f"The model uses {_shown(wanted)}, which is not an allowed type.")
        if wanted == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _ArrayHeader
        found = _import(wanted)
        self._admit(wanted, found)
        return found

    def _admit(self, wanted: Name, found: object) -> None:
        if wanted in self._extra:
            self._operator_chose.add(id(found))
        if isinstance(found, type):
            self._types.add(found)
        call = rebuilding.CALLS.get(".".join(wanted))
        if call is not None:
            self._calls[id(found)] = call

    def is_admitted(self, kind: type) -> bool:
        """Tell whether the file has imported the type *kind*."""
        return kind in self._types

    def is_operators(self, thing: object) -> bool:
        """Tell whether *thing* is there because `MODEL_ALLOWED_TYPES` names it."""
        return id(thing) in self._operator_chose

    def call(self, called: Any, arguments: Any, budget: Budget) -> object:
        """Do what REDUCE asks for."""
        if type(arguments) is not tuple:
            raise unsafe("calls something in an unusual way")
        if self.is_operators(called):
            return called(*arguments)
        call = self._calls.get(id(called))
        if call is None:
            raise unsafe(f"calls {_described(called)}")
        return call(called, arguments, budget)

    def make(self, kind: Any, arguments: Any) -> object:
        """Do what NEWOBJ asks for: make an instance without calling its `__init__`."""
        if kind is _ArrayHeader:
            return _ArrayHeader()
        if not isinstance(kind, type) or kind not in self._types or type(arguments) is not tuple:
            raise unsafe(f"makes {_described(kind)}")
        if self.is_operators(kind):
            return kind.__new__(kind, *arguments)
        if issubclass(kind, tuple) and len(arguments) == len(getattr(kind, "_fields", ())):
            return tuple.__new__(kind, arguments)
        if arguments:
            raise unsafe(f"makes {_described(kind)} in an unusual way")
        try:
            return dict.__new__(kind) if issubclass(kind, dict) else object.__new__(kind)
        # Python itself refuses this for a type whose instances have more than attributes.
        except TypeError as error:
            raise unsafe(f"makes {_described(kind)} in an unusual way") from error

    def build(self, instance: Any, state: Any, budget: Budget) -> None:
        """Do what BUILD asks for: give *instance* its *state*."""
        kind = type(instance)
        set_state = rebuilding.state_of(instance)
        try:
            if set_state is not None:
                set_state(instance, state, budget)
            elif kind not in self._types:
                raise unsafe(f"changes {_described(instance)}")
            elif self.is_operators(kind):
                _set_any_state(instance, state)
            else:
                self._set_attributes(instance, state)
        except (ModelRejected, MemoryError, RecursionError):
            raise
        except Exception as error:
            raise refused(
                "incompatible_state",
                f"The state of {_shown((kind.__module__, kind.__qualname__))} does not fit "
                f"scikit-learn {sklearn.__version__}.",
            ) from error

    def _set_attributes(self, instance: Any, state: Any) -> None:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise unsafe("gives an object an unusual state")
        kind = type(instance)
        hidden = _methods_of(kind) & state.keys()  # type: ignore[arg-type]  # types are hashable
        if hidden or any(name.startswith("__") for name in state):
            raise unsafe(f"replaces methods of {_shown((kind.__module__, kind.__qualname__))}")
        if isinstance(instance, BaseEstimator):
            state = self._without_the_writer(kind, state)
        set_state = getattr(instance, "__setstate__", None)
        if set_state is None:
            instance.__dict__.update(state)
        else:
            set_state(state)

    def _without_the_writer(self, kind: type, state: dict[str, Any]) -> dict[str, Any]:
        # scikit-learn would warn of another version than its own; here it is recorded, for a gate to judge.
        version = state.get("_sklearn_version")
        if type(version) is str:
            self.writers.add((f"{kind.__module__}.{kind.__qualname__}", version[:32]))
        return {**state, "_sklearn_version": sklearn.__version__}


def _import(wanted: Name) -> object:
    module, name = wanted
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise refused("type_unknown", f"The model uses {_shown(wanted)}, which is not installed here.") from error


def _set_any_state(instance: Any, state: Any) -> None:
    """Do what pickle does, for a type that the operator trusts."""
    set_state = getattr(instance, "__setstate__", None)
    if set_state is not None:
        set_state(state)
        return
    attributes, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
    instance.__dict__.update(attributes or {})
    for name, value in (slots or {}).items():
        setattr(instance, name, value)


@functools.cache
def _methods_of(kind: type) -> frozenset[str]:
    """Return the names by which *kind* does something, so that no attribute may hide them."""
    return frozenset(
        name
        for base in kind.__mro__
        for name, value in vars(base).items()
        if callable(value) or hasattr(type(value), "__get__")
    )


def _described(thing: object) -> str:
    if isinstance(thing, type):
        return _shown((thing.__module__, thing.__qualname__))
    name = getattr(thing, "__name__", None)
    if callable(thing) and isinstance(name, str):
        return _shown((str(getattr(thing, "__module__", "?")), name))
    return f"an instance of {type(thing).__qualname__}"


def _shown(name: Name) -> str:
    """Return *name*, which came from a file, as it may stand in a message and in a log."""
    return re.sub(r"[^\w.<>\[\]-]", "?", ".".join(name), flags=re.ASCII)[:120]


# The machine ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Machine:
    """Runs one pickle. *depth* counts the pickles around it: an array of objects is a pickle in a pickle."""

    stream: _Stream
    names: _Names
    budget: Budget
    depth: int = 0
    protocol: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> object:
        if self.depth > MAX_NESTED_PICKLES:
            raise unsafe("is nested too deep")
        opcode = self.stream.opcode
        while (code := opcode(1)) != b".":
            step = _STEPS.get(code)
            if step is None:
                raise _unknown(code)
            self.budget.steps -= 1
            if self.budget.steps < 0:
                raise refused("too_complex", "The model file has too many parts.")
            step(self)
        if len(self.stack) != 1 or self.marks:
            raise damaged("it ends too early")
        return self.stack[0]

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last MARK."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def nested(self) -> object:
        """Run the pickle that begins here."""
        return _Machine(self.stream, self.names, self.budget, self.depth + 1).run()


def _unknown(code: bytes) -> ModelRejected:
    if not code:
        return refused("truncated", "The model file ends in the middle.")
    if code in _UNSAFE_OPCODES:
        return unsafe(f"uses the pickle opcode {_UNSAFE_OPCODES[code]}")
    return damaged("it contains something that is not a pickle")


# What no current pickle of a model contains: ways to name code that are not GLOBAL, and the text of protocols 0 and 1.
_UNSAFE_OPCODES: Mapping[bytes, str] = MappingProxyType(
    {
        b"i": "INST",
        b"o": "OBJ",
        b"P": "PERSID",
        b"Q": "BINPERSID",
        b"\x82": "EXT1",
        b"\x83": "EXT2",
        b"\x84": "EXT4",
        b"\x92": "NEWOBJ_EX",
        b"\x97": "NEXT_BUFFER",
        b"\x98": "READONLY_BUFFER",
        b"2": "DUP",
        b"F": "FLOAT",
        b"I": "INT",
        b"L": "LONG",
        b"S": "STRING",
        b"T": "BINSTRING",
        b"U": "SHORT_BINSTRING",
        b"V": "UNICODE",
        b"d": "DICT",
        b"g": "GET",
        b"l": "LIST",
        b"p": "PUT",
    }
)

_INT32 = struct.Struct("<i")
_UINT16 = struct.Struct("<H")
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_DOUBLE = struct.Struct(">d")


def _proto(m: _Machine) -> None:
    m.protocol = m.stream.byte()
    if not 2 <= m.protocol <= 5:
        raise refused(
            "legacy_format", "The file uses a pickle protocol that is not 2 to 5; write it again with joblib."
        )


def _frame(m: _Machine) -> None:
    # A hint for reading ahead, which this machine does not do.
    m.stream.read(_UINT64.size)


def _mark(m: _Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: _Machine) -> None:
    m.stack.pop()


def _pop_mark(m: _Machine) -> None:
    m.since_mark()


def _constant(value: object) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _number(layout: struct.Struct) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.stream.number(layout))


def _byte(m: _Machine) -> None:
    m.stack.append(m.stream.byte())


def _long(m: _Machine, count: int) -> None:
    if not 0 <= count <= _MAX_INTEGER_BYTES:
        raise unsafe("holds an integer of unusual size")
    m.stack.append(int.from_bytes(m.stream.read(count), "little", signed=True))


def _text(length: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        content = m.stream.read(length(m))
        # A string may take four times the bytes that write it.
        if len(content) > STEP_BYTES:
            m.budget.copy(len(content))
        m.stack.append(content.decode("utf-8", "surrogatepass"))

    return step


def _bytes(length: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.stream.read(length(m)))


def _bytearray(m: _Machine) -> None:
    m.stack.append(bytearray(m.stream.read(m.stream.number(_UINT64))))


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        if len(m.stack) < count:
            raise damaged("a tuple is not whole")
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return step


def _tuple(m: _Machine) -> None:
    items = m.since_mark()
    m.stack.append(tuple(items))


def _frozenset(m: _Machine) -> None:
    items = m.since_mark()
    m.stack.append(frozenset(rebuilding.checked_key(item) for item in items))


def _append(m: _Machine) -> None:
    item = m.stack.pop()
    _extend(m, [item])


def _appends(m: _Machine) -> None:
    items = m.since_mark()
    _extend(m, items)


def _extend(m: _Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    # By type, never by having a method of that name: a method is an attribute that a file could have set.
    if type(target) is not list and not (isinstance(target, list) and m.names.is_operators(type(target))):
        raise unsafe("appends to something that is not a list")
    target.extend(items)


def _setitem(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _update(m, [key, value])


def _setitems(m: _Machine) -> None:
    items = m.since_mark()
    _update(m, items)


def _update(m: _Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if not isinstance(target, dict):
        raise unsafe("sets items of something that is not a dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[rebuilding.checked_key(key)] = value


def _additems(m: _Machine) -> None:
    items = m.since_mark()
    target = m.stack[-1]
    if type(target) is not set:
        raise unsafe("adds items to something that is not a set")
    target.update(rebuilding.checked_key(item) for item in items)


def _get(length: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.memo[length(m)])


def _put(m: _Machine, place: int) -> None:
    m.memo[place] = m.stack[-1]


def _global(m: _Machine) -> None:
    module = m.stream.line().decode("utf-8")
    name = m.stream.line().decode("utf-8")
    m.stack.append(m.names.find(module, name))


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise damaged("a name is not text")
    m.stack.append(m.names.find(module, name))


def _reduce(m: _Machine) -> None:
    arguments = m.stack.pop()
    m.stack[-1] = m.names.call(m.stack[-1], arguments, m.budget)


def _newobj(m: _Machine) -> None:
    arguments = m.stack.pop()
    m.stack[-1] = m.names.make(m.stack[-1], arguments)


def _build(m: _Machine) -> None:
    state = m.stack.pop()
    if type(m.stack[-1]) is _ArrayHeader:
        m.stack[-1] = _array(m, state)
    else:
        m.names.build(m.stack[-1], state, m.budget)


def _array(m: _Machine, header: Any) -> Array:
    """Read the array that follows its joblib *header*."""
    if type(header) is not dict or header.get("subclass") not in (np.ndarray, np.memmap):
        raise unsafe("has an unusual array header")
    dtype, order = rebuilding.checked_dtype(header.get("dtype")), header.get("order")
    shape: Any = header.get("shape")
    count = rebuilding.count_of(shape)
    if order not in ("C", "F"):
        raise unsafe("has an unusual array header")
    if dtype.hasobject:
        return _array_of_objects(m, shape)
    if header.get("numpy_array_alignment_bytes") is not None:
        m.stream.read(m.stream.byte())
    m.budget.copy(count * dtype.itemsize)
    array: Array = np.empty(count, dtype)
    m.stream.fill(array)
    array = array.reshape(shape[::-1]).transpose() if order == "F" else array.reshape(shape)
    return rebuilding.native(array)


def _array_of_objects(m: _Machine, shape: Any) -> Array:
    array = m.nested()
    if type(array) is not np.ndarray or not array.dtype.hasobject or array.shape != shape:
        raise unsafe("holds something else where an array should be")
    return array


def _byte_of(m: _Machine) -> int:
    return m.stream.byte()


def _uint32_of(m: _Machine) -> int:
    return int(m.stream.number(_UINT32))


def _uint64_of(m: _Machine) -> int:
    return int(m.stream.number(_UINT64))


_STEPS: Mapping[bytes, Callable[[_Machine], None]] = MappingProxyType(
    {
        b"\x80": _proto,
        b"\x95": _frame,
        b"(": _mark,
        b"0": _pop,
        b"1": _pop_mark,
        b"N": _constant(None),
        b"\x88": _constant(True),
        b"\x89": _constant(False),
        b"J": _number(_INT32),
        b"K": _byte,
        b"M": _number(_UINT16),
        b"G": _number(_DOUBLE),
        b"\x8a": lambda m: _long(m, m.stream.byte()),
        b"\x8b": lambda m: _long(m, m.stream.number(_INT32)),
        b"\x8c": _text(_byte_of),
        b"X": _text(_uint32_of),
        b"\x8d": _text(_uint64_of),
        b"C": _bytes(_byte_of),
        b"B": _bytes(_uint32_of),
        b"\x8e": _bytes(_uint64_of),
        b"\x96": _bytearray,
        b")": _constant(()),
        b"t": _tuple,
        b"\x85": _tuple_of(1),
        b"\x86": _tuple_of(2),
        b"\x87": _tuple_of(3),
        b"]": lambda m: m.stack.append([]),
        b"a": _append,
        b"e": _appends,
        b"}": lambda m: m.stack.append({}),
        b"s": _setitem,
        b"u": _setitems,
        b"\x8f": lambda m: m.stack.append(set()),
        b"\x90": _additems,
        b"\x91": _frozenset,
        b"h": _get(_byte_of),
        b"j": _get(_uint32_of),
        b"q": lambda m: _put(m, m.stream.byte()),
        b"r": lambda m: _put(m, _uint32_of(m)),
        b"\x94": lambda m: _put(m, len(m.memo)),
        b"c": _global,
        b"\x93": _stack_global,
        b"R": _reduce,
        b"\x81": _newobj,
        b"b": _build,
    }
)


# Who wrote a file that does not load ----------------------------------------------------------------------------------

_MAY_BE_THE_VERSION = frozenset({"type_not_allowed", "type_unknown", "incompatible_state"})
# The key and the value of an estimator's state, as protocols 2 to 5 write them.
_WRITER = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c.|X.{4})(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)(?:\x94|q|r|[^\d.])", re.DOTALL
)
_WRITER_OVERLAP = 64


def _with_the_writer(error: ModelRejected, file: BinaryIO, max_bytes: int) -> ModelRejected:
    version = _writer_in(file, max_bytes)
    if version is None or version == sklearn.__version__:
        return error
    return refused(error.reason, f"{error.detail} It was written by scikit-learn {version}.")


def _writer_in(file: BinaryIO, max_bytes: int) -> str | None:
    """Search the bytes of *file* for the version of scikit-learn that wrote it, without running them."""
    try:
        for part in _parts(_open(file, max_bytes)):
            found = _WRITER.search(part)
            if found is not None:
                return found[1].decode("ascii")
    except (ModelRejected, EOFError, OSError, MemoryError, zlib.error, lzma.LZMAError):
        return None
    return None


def _parts(source: _Capped) -> Iterator[bytes]:
    buffer = io.BufferedReader(source, STEP_BYTES)
    kept = b""
    while part := buffer.read(STEP_BYTES):
        yield kept + part
        kept = part[-_WRITER_OVERLAP:]


# Self-test ------------------------------------------------------------------------------------------------------------


class LoaderIsNotSafe(RuntimeError):
    """The loader let a name pass that is not allowed; nothing may be loaded with it."""


@functools.cache
def _prove_that_names_are_checked() -> None:
    """Make sure, once, that a name in a pickle within an array of objects is looked up in the list.

    joblib before 1.6.0 did not: what is proved here is that no later change brings it back.
    """
    canary = (
        b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(X\x08\x00\x00\x00subclasscnumpy\nndarray\n"
        b"X\x05\x00\x00\x00shapeK\x01\x85X\x05\x00\x00\x00orderX\x01\x00\x00\x00CX\x05\x00\x00\x00dtype"
        b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87Rub"
        b"\x80\x04cthis\nc\n."
    )
    try:
        _read(io.BytesIO(canary), len(canary), frozenset())
    except ModelRejected as error:
        if error.reason == "type_not_allowed" and "this.c" in error.detail:
            return
    raise LoaderIsNotSafe("The model loader does not check the names in nested pickles.")
