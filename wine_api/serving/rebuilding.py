"""What a model file may have built for it, besides plain Python objects: each thing is checked before it exists.

`CALLS` are the functions and types that a file may call, `STATES` the types whose state is not just attributes. Both
are keyed by exact name. Nothing here trusts its arguments: what is built in C believes every length and every index
that it is given, so they are compared here first.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wine_api.errors import ModelRejected

GATE = "unpickling"

Array = npt.NDArray[Any]

_SIMPLE_DTYPE = re.compile(r"[<>|=]?(?:[biuf][1248]|f16|c8|c16|O8|[SU][1-9]\d{0,5}|V[1-9]\d{0,3})", re.ASCII)
_MAX_DIMENSIONS = 8
_MAX_FIELDS = 32
_MAX_OUTPUTS = 16
_MAX_CLASSES = 10_000
_MAX_FEATURES = 1_000_000
_INT64 = 2**63


def refused(reason: str, detail: str) -> ModelRejected:
    """Return the error that says why a file was not loaded."""
    return ModelRejected(GATE, reason, detail)


def unsafe(what: str) -> ModelRejected:
    """Return the error for a file that asks for something that would, or could, run code."""
    return refused("unsafe_pickle", f"The model file {what}, which no model that scikit-learn writes does.")


def damaged(what: str) -> ModelRejected:
    """Return the error for a file that is not whole."""
    return refused("corrupt", f"The model file is damaged: {what}.")


@dataclass(slots=True)
class Budget:
    """How much one file may still cost.

    Reading is bounded elsewhere; this bounds what a short file can multiply, by naming one big thing many times.
    """

    steps: int
    copied_bytes: int

    def copy(self, count: int) -> None:
        """Account for *count* bytes that are held twice from now on."""
        self.copied_bytes -= count
        if self.copied_bytes < 0:
            raise refused("too_large_when_decompressed", "The model would take too much memory.")


class Call(Protocol):
    """Does what the pickle asks for with REDUCE, if its *arguments* are those that scikit-learn would write."""

    def __call__(self, called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
        """Return what the call makes."""


class State(Protocol):
    """Gives *instance* the *state* that the pickle asks for with BUILD."""

    def __call__(self, instance: Any, state: Any, budget: Budget) -> None:
        """Set it, or raise `ModelRejected`."""


def count_of(shape: Any) -> int:
    """Return the number of elements of an array of *shape*, which came from a file."""
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise damaged("an array has no valid shape")
    if not all(type(length) is int and 0 <= length < _INT64 for length in shape):
        raise damaged("an array has no valid shape")
    return math.prod(shape)


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """Return *dtype* if it is one, and has a size."""
    if not isinstance(dtype, np.dtype) or dtype.itemsize < 1:
        raise damaged("an array has no valid type")
    return dtype


def checked_elements(elements: Any, count: int, holder: object = None) -> list[Any]:
    """Return the *elements* of an object array, if there are *count* and none is an array of objects.

    Arrays are freed recursively in C: a long enough chain of them ends the process.
    """
    if type(elements) is not list or len(elements) != count:
        raise damaged("an array does not have as many elements as its shape says")
    if any(item is holder or (isinstance(item, np.ndarray) and item.dtype.hasobject) for item in elements):
        raise unsafe("nests arrays of objects")
    return elements


def native(array: Array) -> Array:
    """Return *array* in the byte order of this machine."""
    order = array.dtype.newbyteorder("=")
    return array if array.dtype == order else array.astype(order)


# dtypes ---------------------------------------------------------------------------------------------------------------


def _dtype(called: Any, arguments: tuple[Any, ...], budget: Budget) -> np.dtype[Any]:
    if len(arguments) != 3 or type(arguments[0]) is not str or not _SIMPLE_DTYPE.fullmatch(arguments[0]):
        raise unsafe("asks for an unusual array type")
    # Always a copy: the state that follows would change the type that the whole process shares.
    return np.dtype(arguments[0], False, True)


def _set_dtype(instance: np.dtype[Any], state: Any, budget: Budget) -> None:
    """Set the state that numpy itself gives to the dtype which *state* describes.

    numpy believes the flags of a state. One that hides an object field makes it read pointers out of the file.
    """
    if type(state) is not tuple or len(state) != 8 or state[1] not in ("<", ">", "|", "=") or state[2] is not None:
        raise unsafe("gives an array type an unusual state")
    _, order, _, names, fields, _, _, flags = state
    expected = _plain_dtype(instance, order) if names is None else _record_dtype(instance, names, fields, flags)
    instance.__setstate__(expected.__reduce__()[2])  # type: ignore[attr-defined]  # not in the stubs


def _plain_dtype(instance: np.dtype[Any], order: str) -> np.dtype[Any]:
    if instance.kind == "V":
        raise unsafe("holds an array of untyped bytes")
    return np.dtype(instance.str).newbyteorder(order)  # type: ignore[arg-type]  # one of four letters


def _record_dtype(instance: np.dtype[Any], names: Any, fields: Any, flags: Any) -> np.dtype[Any]:
    if instance.kind != "V" or type(names) is not tuple or type(fields) is not dict or type(flags) is not int:
        raise unsafe("gives an array type an unusual state")
    if len(names) > _MAX_FIELDS or not all(type(name) is str for name in names) or set(names) != set(fields):
        raise unsafe("gives an array type unusual fields")
    for field in fields.values():
        if type(field) is not tuple or len(field) != 2 or type(field[1]) is not int:
            raise unsafe("gives an array type unusual fields")
        if not isinstance(field[0], np.dtype) or field[0].kind not in "biuf":
            raise unsafe("gives an array type fields that are not numbers")
    return np.dtype(
        {
            "names": list(names),
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": instance.itemsize,
        }
    )


# Arrays and what they are made of -------------------------------------------------------------------------------------


def _scalar(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    if len(arguments) != 2 or not isinstance(arguments[0], np.dtype) or type(arguments[1]) is not bytes:
        raise unsafe("holds an unusual number")
    dtype, value = arguments
    if dtype.kind not in "biufcSU" or len(value) != dtype.itemsize:
        raise unsafe("holds an unusual number")
    return np.frombuffer(value, dtype=dtype)[0]


def _empty_array(called: Any, arguments: tuple[Any, ...], budget: Budget) -> Array:
    if len(arguments) != 3 or arguments[0] not in (np.ndarray, np.memmap) or arguments[1] != (0,):
        raise unsafe("makes an array in an unusual way")
    return np.ndarray((0,), "b")


def _set_array(instance: Array, state: Any, budget: Budget) -> None:
    if type(state) is not tuple or len(state) != 5 or type(state[3]) is not bool:
        raise damaged("an array has no valid state")
    _demand_untouched(instance)
    _, shape, dtype, _, content = state
    _check_content(shape, dtype, content, instance, budget)
    instance.__setstate__(state)


def _demand_untouched(instance: Array) -> None:
    # Setting the state frees the memory of an array, which others may look into by then.
    if instance.shape != (0,) or instance.dtype != np.int8:
        raise unsafe("changes an array that it has made")


def _check_content(shape: Any, dtype: Any, content: Any, holder: object, budget: Budget) -> None:
    count = count_of(shape)
    if checked_dtype(dtype).hasobject:
        checked_elements(content, count, holder)
    elif type(content) is not bytes or len(content) != count * dtype.itemsize:
        raise damaged("an array does not have as many bytes as its shape says")
    else:
        budget.copy(len(content))


def _view(called: Any, arguments: tuple[Any, ...], budget: Budget) -> Array:
    if len(arguments) != 4 or type(arguments[0]) not in (bytes, bytearray) or arguments[3] not in ("C", "F"):
        raise unsafe("makes an array in an unusual way")
    content, dtype, shape, order = arguments
    if checked_dtype(dtype).hasobject or len(content) != count_of(shape) * dtype.itemsize:
        raise damaged("an array does not have as many bytes as its shape says")
    array: Array = np.frombuffer(content, dtype=dtype).reshape(shape, order=order)
    return native(array)


def _empty_masked_array(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    if len(arguments) != 4 or arguments[:3] != (np.ma.MaskedArray, np.ndarray, (0,)):
        raise unsafe("makes an array in an unusual way")
    return called(np.ma.MaskedArray, np.ndarray, (0,), "b")


def _set_masked_array(instance: Any, state: Any, budget: Budget) -> None:
    if type(state) is not tuple or len(state) != 7 or type(state[3]) is not bool or type(state[5]) is not bytes:
        raise damaged("an array has no valid state")
    _demand_untouched(instance)
    _, shape, dtype, _, content, mask, _ = state
    _check_content(shape, dtype, content, instance, budget)
    if len(mask) != count_of(shape):
        raise damaged("an array does not have as many bytes as its shape says")
    # Without the fill value, which can be anything and means nothing to a model.
    instance.__setstate__((*state[:6], None))


def _encoded(called: Any, arguments: tuple[Any, ...], budget: Budget) -> bytes:
    # How protocol 2 writes bytes.
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        raise unsafe("encodes text")
    budget.copy(len(arguments[0]))
    return arguments[0].encode("latin-1")


# Plain Python ---------------------------------------------------------------------------------------------------------


def checked_key(key: Any) -> Any:
    """Return *key* if it can be looked up in constant time, whoever chose it.

    The hash of nested tuples takes exponential time, and big integers can be chosen to share one hash.
    """
    if type(key) is tuple:
        if len(key) > _MAX_FIELDS or not all(_is_plain(part) for part in key):
            raise unsafe("uses an unusual key")
        return key
    if not _is_plain(key):
        raise unsafe("uses an unusual key")
    return key


def _is_plain(value: Any) -> bool:
    if type(value) is int:
        return -(2**60) < value < 2**60
    return value is None or type(value) in (str, float, bool, bytes) or isinstance(value, np.number | np.bool | np.str_)


def _slice(called: Any, arguments: tuple[Any, ...], budget: Budget) -> slice:
    if len(arguments) != 3 or not all(_is_plain(argument) for argument in arguments):
        raise unsafe("makes an unusual slice")
    return slice(*arguments)


def _set(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    if len(arguments) > 1 or not all(type(argument) is list for argument in arguments):
        raise unsafe("makes an unusual set")
    return called(checked_key(key) for argument in arguments for key in argument)


def _empty_bytes(called: Any, arguments: tuple[Any, ...], budget: Budget) -> bytes:
    if arguments:
        raise unsafe("makes bytes in an unusual way")
    return b""


def _ordered_dict(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    if arguments:
        raise unsafe("makes a dictionary in an unusual way")
    return OrderedDict()


# Random generators ----------------------------------------------------------------------------------------------------
# None is drawn from to predict, and their state is an index into memory: each is replaced by a new one.


def _new_random_state(called: Any, arguments: tuple[Any, ...], budget: Budget) -> np.random.RandomState:
    return np.random.RandomState(0)


def _new_generator(called: Any, arguments: tuple[Any, ...], budget: Budget) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


def _new_bit_generator(called: Any, arguments: tuple[Any, ...], budget: Budget) -> np.random.BitGenerator:
    return np.random.MT19937(0)


def _new_seed_sequence(called: Any, arguments: tuple[Any, ...], budget: Budget) -> np.random.SeedSequence:
    return np.random.SeedSequence(0)


def _keep_as_it_is(instance: Any, state: Any, budget: Budget) -> None:
    """Leave *instance* as it was made."""


# scikit-learn's structures in C ---------------------------------------------------------------------------------------


def _tree(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    """Make an empty tree, whose constructor reads as many class counts as it is told that there are."""
    if len(arguments) != 3 or type(arguments[0]) is not int or type(arguments[2]) is not int:
        raise unsafe("makes a tree in an unusual way")
    features, classes, outputs = arguments
    if not isinstance(classes, np.ndarray) or classes.dtype.kind not in "iu" or classes.shape != (outputs,):
        raise unsafe("makes a tree in an unusual way")
    if not (1 <= features <= _MAX_FEATURES and 1 <= outputs <= _MAX_OUTPUTS):
        raise unsafe("makes a tree of an impossible size")
    if not ((classes >= 1) & (classes <= _MAX_CLASSES)).all():
        raise unsafe("makes a tree of an impossible size")
    return called(features, classes, outputs)


def _set_tree(instance: Any, state: Any, budget: Budget) -> None:
    """Fill an empty tree. It would believe *node_count*, and read past the nodes that came with it."""
    if type(state) is not dict or set(state) != {"max_depth", "node_count", "nodes", "values"}:
        raise unsafe("gives a tree an unusual state")
    nodes, values, count, depth = state["nodes"], state["values"], state["node_count"], state["max_depth"]
    if type(nodes) is not np.ndarray or type(values) is not np.ndarray or nodes.ndim != 1 or values.ndim != 3:
        raise unsafe("gives a tree an unusual state")
    if type(count) is not int or count != len(nodes) or count < 1 or type(depth) is not int:
        raise refused("invalid_tree", "A tree of the model does not have as many nodes as it says.")
    if not 0 <= depth <= count or instance.node_count != 0:
        raise refused("invalid_tree", "A tree of the model has an impossible depth, or is filled twice.")
    budget.copy(nodes.nbytes + values.nbytes)
    instance.__setstate__(state)


def _new_object(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    """Make an empty search tree or metric: *called* is Cython's helper, which would make anything."""
    if len(arguments) != 1 or type_name(arguments[0]) not in _MADE_EMPTY:
        raise unsafe("makes a search tree in an unusual way")
    return called(arguments[0])


def _set_search_tree(instance: Any, state: Any, budget: Budget) -> None:
    # Its arrays are compared with each other in structure.py. Here only what would be followed as a null pointer.
    if type(state) is not tuple or len(state) != 13 or type_name(type(state[11])) not in _METRICS:
        raise unsafe("gives a search tree an unusual state")
    if not all(type(array) is np.ndarray for array in state[:4]) or not all(type(n) is int for n in state[4:11]):
        raise unsafe("gives a search tree an unusual state")
    instance.__setstate__(state)


def _set_metric(instance: Any, state: Any, budget: Budget) -> None:
    if type(state) is not tuple or len(state) != 3 or type(state[0]) is not float:
        raise unsafe("gives a metric an unusual state")
    if not all(type(array) is np.ndarray for array in state[1:]):
        raise unsafe("gives a metric an unusual state")
    instance.__setstate__(state)


def _loss(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    if len(arguments) > 3 or not all(type(argument) in (float, int) for argument in arguments):
        raise unsafe("makes a loss in an unusual way")
    return called(*arguments)


def _multinomial_loss(called: Any, arguments: tuple[Any, ...], budget: Budget) -> object:
    if len(arguments) != 3 or type_name(arguments[0]) != "sklearn._loss._loss.CyHalfMultinomialLoss":
        raise unsafe("makes a loss in an unusual way")
    if type(arguments[1]) is not int or arguments[2] not in (None, ()):
        raise unsafe("makes a loss in an unusual way")
    # The checksum stays: with it, scikit-learn refuses a loss of a version that kept it differently.
    return called(arguments[0], arguments[1], None)


def _set_loss(instance: Any, state: Any, budget: Budget) -> None:
    # What scikit-learn 1.8 writes for a loss that has no state.
    if state != ():
        raise unsafe("gives a loss an unusual state")


def type_name(value: Any) -> str | None:
    """Return the full name of a type, or None for anything else."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else None


_METRICS = frozenset(
    f"sklearn.metrics._dist_metrics.{name}Distance64" for name in ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
)
_SEARCH_TREES = frozenset({"sklearn.neighbors._kd_tree.KDTree", "sklearn.neighbors._ball_tree.BallTree"})
_MADE_EMPTY = _METRICS | _SEARCH_TREES
_LOSSES = frozenset(
    {
        *(
            f"sklearn._loss._loss.Cy{name}"
            for name in (
                "AbsoluteError",
                "ExponentialLoss",
                "HalfBinomialLoss",
                "HalfGammaLoss",
                "HalfPoissonLoss",
                "HalfSquaredError",
                "HalfTweedieLoss",
                "HalfTweedieLossIdentity",
                "HuberLoss",
                "PinballLoss",
            )
        ),
        *(
            f"sklearn.linear_model._sgd_fast.{name}"
            for name in ("EpsilonInsensitive", "Hinge", "ModifiedHuber", "SquaredEpsilonInsensitive", "SquaredHinge")
        ),
    }
)

CALLS: Mapping[str, Call] = MappingProxyType(
    {
        "_codecs.encode": _encoded,
        "builtins.bytes": _empty_bytes,
        "builtins.frozenset": _set,
        "builtins.set": _set,
        "builtins.slice": _slice,
        "collections.OrderedDict": _ordered_dict,
        "numpy.dtype": _dtype,
        "numpy._core.multiarray._reconstruct": _empty_array,
        "numpy._core.multiarray.scalar": _scalar,
        "numpy._core.numeric._frombuffer": _view,
        "numpy.ma.core._mareconstruct": _empty_masked_array,
        "numpy.random._pickle.__bit_generator_ctor": _new_bit_generator,
        "numpy.random._pickle.__generator_ctor": _new_generator,
        "numpy.random._pickle.__randomstate_ctor": _new_random_state,
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": _new_seed_sequence,
        "sklearn.tree._tree.Tree": _tree,
        "sklearn.metrics._dist_metrics.newObj": _new_object,
        "sklearn.neighbors._ball_tree.newObj": _new_object,
        "sklearn.neighbors._kd_tree.newObj": _new_object,
        "sklearn._loss._loss.__pyx_unpickle_CyHalfMultinomialLoss": _multinomial_loss,
        **dict.fromkeys(_LOSSES, _loss),
    }
)

STATES: Mapping[type | str, State] = MappingProxyType(
    {
        np.ndarray: _set_array,
        np.ma.MaskedArray: _set_masked_array,
        np.random.RandomState: _keep_as_it_is,
        np.random.Generator: _keep_as_it_is,
        np.random.MT19937: _keep_as_it_is,
        np.random.SeedSequence: _keep_as_it_is,
        "sklearn.tree._tree.Tree": _set_tree,
        "sklearn._loss._loss.CyHalfMultinomialLoss": _set_loss,
        **dict.fromkeys(_SEARCH_TREES, _set_search_tree),
        **dict.fromkeys(_METRICS, _set_metric),
    }
)


def state_of(instance: object) -> Callable[[Any, Any, Budget], None] | None:
    """Return what sets the state of *instance*, or None where it is just attributes."""
    if isinstance(instance, np.dtype):
        return _set_dtype
    return STATES.get(type(instance)) or STATES.get(type_name(type(instance)) or "")
