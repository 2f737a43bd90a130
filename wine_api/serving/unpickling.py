"""Reads a model file without running any code that is in it.

A pickle is a program. This is a machine for the part of its language that model files need: it imports only the names
of allowed_types.txt, calls only what rebuilding.py checks, and stops at anything else. It is used instead of
`joblib.load` and of `pickle.Unpickler` subclasses, because each of them leaves a way around `find_class`: files that
begin with "ZF", pickles nested in arrays of objects, dotted names, the extension registry, BUILD on a class.
"""

from __future__ import annotations

import functools
import io
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import sklearn

from wine_api.errors import ModelRejected
from wine_api.serving import rebuilding
from wine_api.serving.model_bytes import STEP_BYTES, Capped, Stream, open_pickle
from wine_api.serving.model_names import ArrayHeader, Name, Names, names_in
from wine_api.serving.rebuilding import Array, Budget, damaged, refused, unsafe

# A gradient boosting of 7 classes and 1000 rounds takes 0.9 million steps.
MAX_STEPS = 5_000_000
MAX_NESTED_PICKLES = 16
_MAX_INTEGER_BYTES = 512


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
            return _read(file, max_bytes, names_in(extra_types))
        except ModelRejected as error:
            if error.reason not in _MAY_BE_THE_VERSION:
                raise
            raise _with_the_writer(error, file, max_bytes) from error


def _read(file: BinaryIO, max_bytes: int, extra: frozenset[Name]) -> Unpickled:
    try:
        stream = Stream(open_pickle(file, max_bytes), max_bytes)
        names = Names(extra)
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
    # Whatever the bytes are, they are the file's fault: a caller handles one kind of error. A disk that fails is not.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(f"reading it raised {type(error).__name__}") from error
    return Unpickled(model, frozenset(names.writers))


# The machine ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Machine:
    """Runs one pickle. *depth* counts the pickles around it: an array of objects is a pickle in a pickle."""

    stream: Stream
    names: Names
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
    if type(m.stack[-1]) is ArrayHeader:
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
        for part in _parts(open_pickle(file, max_bytes)):
            found = _WRITER.search(part)
            if found is not None:
                return found[1].decode("ascii")
    except (ModelRejected, EOFError, OSError, MemoryError, zlib.error, lzma.LZMAError):
        return None
    return None


def _parts(source: Capped) -> Iterator[bytes]:
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
