"""What a model file may name, and what may be done with it: import it, call it, make one, give it a state."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable
from importlib import resources
from types import MappingProxyType
from typing import Any

import sklearn
from sklearn.base import BaseEstimator

from wine_api.errors import ModelRejected
from wine_api.serving import rebuilding
from wine_api.serving.rebuilding import Budget, Call, refused, unsafe

Name = tuple[str, str]

_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}", re.ASCII)


@functools.cache
def allowed_names() -> frozenset[Name]:
    """Return the names that every model file may use."""
    text = resources.files("wine_api.serving").joinpath("allowed_types.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return names_in(line for line in lines if line and not line.startswith("#"))


def names_in(entries: Iterable[str]) -> frozenset[Name]:
    """Read `module.name` *entries*."""
    return frozenset((module, name) for module, _, name in (entry.rpartition(".") for entry in entries))


# What the same thing is called in files of protocol 2, of NumPy 1 and of scikit-learn 1.5 to 1.8.
_RENAMED_MODULES = MappingProxyType({"__builtin__": "builtins", "_loss": "sklearn._loss._loss"})


def _canonical(module: str, name: str) -> Name:
    if module.startswith("numpy.core."):
        module = "numpy._core." + module.removeprefix("numpy.core.")
    return _RENAMED_MODULES.get(module, module), name


class ArrayHeader:
    """Stands for joblib's NumpyArrayWrapper, after which the bytes of an array follow in the stream."""


class Names:
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
            return ArrayHeader
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
        if kind is ArrayHeader:
            return ArrayHeader()
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
            shown = version if _VERSION.fullmatch(version) else "unknown"
            self.writers.add((f"{kind.__module__}.{kind.__qualname__}", shown))
        return {**state, "_sklearn_version": sklearn.__version__}


def _import(wanted: Name) -> object:
    module, name = wanted
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise refused("type_unknown", f"The model uses {_shown(wanted)}, which is not installed here.") from error
    except ImportError as error:
        # It is installed, but its shared library does not fit into the memory that a trial may have.
        raise MemoryError from error


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
