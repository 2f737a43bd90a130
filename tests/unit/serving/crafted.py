"""Model files as an attacker, an accident or another program would make them, and the honest ones to compare with."""

from __future__ import annotations

import functools
import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

UCI_NAMES = [
    "fixed acidity",
    "volatile acidity",
    "citric acid",
    "residual sugar",
    "chlorides",
    "free sulfur dioxide",
    "total sulfur dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
]
CULTIVAR_NAMES = [
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280/od315_of_diluted_wines",
    "proline",
]

# Honest models --------------------------------------------------------------------------------------------------------


def wines(features: int = 11, rows: int = 120) -> tuple[Any, Any]:
    """Return made-up wines and their qualities: 4, 5 and 6."""
    random = np.random.RandomState(1)
    table = np.abs(random.normal(5, 2, size=(rows, features))).round(2)
    return table, np.clip((table[:, 0] / 2 + table[:, 1] / 2).round(), 4, 6).astype(int)


def forest(**settings: Any) -> Any:
    """Return a small forest, not fitted."""
    return RandomForestClassifier(**{"n_estimators": 3, "max_depth": 3, "random_state": 0, **settings})


def fitted_forest(names: list[str] | None = None, features: int = 11, classes: Any = None, **settings: Any) -> Any:
    """Return a small fitted forest; *names* are those it would have from a DataFrame."""
    table, quality = wines(features)
    model = forest(**settings).fit(table, quality if classes is None else np.asarray(classes)[quality - 4])
    return model if names is None else named(model, names)


def named(model: Any, names: list[str]) -> Any:
    """Give *model* the attribute that it would have from a DataFrame."""
    model.feature_names_in_ = np.array(names, dtype=object)
    return model


def _scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "random forest": forest,
    "random forest with a random state": lambda: forest(random_state=np.random.RandomState(0)),
    "balanced random forest": lambda: forest(class_weight={4: 1.0, 5: 2.0, 6: 3.0}),
    "extra trees": lambda: ExtraTreesClassifier(3, max_depth=3, random_state=0),
    "decision tree": lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=2, random_state=0),
    "hist gradient boosting": lambda: HistGradientBoostingClassifier(max_iter=2, random_state=0),
    "bagging": lambda: BaggingClassifier(n_estimators=2, max_features=0.7, random_state=0),
    "ada boost": lambda: AdaBoostClassifier(n_estimators=2, random_state=0),
    "soft voting": lambda: VotingClassifier([("a", forest()), ("b", GaussianNB())], voting="soft"),
    "hard voting": lambda: VotingClassifier([("a", forest()), ("b", GaussianNB())]),
    "stacking": lambda: StackingClassifier([("a", GaussianNB()), ("b", _scaled(LogisticRegression()))], cv=2),
    "calibrated": lambda: CalibratedClassifierCV(GaussianNB(), cv=2),
    "isotonic": lambda: CalibratedClassifierCV(GaussianNB(), cv=2, method="isotonic"),
    "grid search": lambda: GridSearchCV(forest(), {"max_depth": [2, None]}, cv=2, scoring="accuracy"),
    "one vs rest": lambda: OneVsRestClassifier(GaussianNB()),
    "one vs one": lambda: OneVsOneClassifier(GaussianNB()),
    "logistic regression": lambda: _scaled(LogisticRegression()),
    "ridge": RidgeClassifier,
    "stochastic gradient": lambda: _scaled(SGDClassifier(loss="log_loss", random_state=0)),
    "linear svc": lambda: _scaled(LinearSVC()),
    "svc": lambda: _scaled(SVC()),
    "nu svc": lambda: NuSVC(nu=0.05, kernel="linear"),
    "neighbours": lambda: _scaled(KNeighborsClassifier()),
    "neighbours in a ball tree": lambda: KNeighborsClassifier(algorithm="ball_tree", weights="distance"),
    "neighbours without a tree": lambda: KNeighborsClassifier(algorithm="brute", metric="manhattan"),
    "naive bayes": GaussianNB,
    "linear discriminant": LinearDiscriminantAnalysis,
    "neural network": lambda: _scaled(MLPClassifier((4,), solver="lbfgs", max_iter=200, tol=1, random_state=0)),
    "scaled forest": lambda: _scaled(forest()),
    "min-max": lambda: make_pipeline(MinMaxScaler(), forest()),
    "robust": lambda: make_pipeline(RobustScaler(), forest()),
    "power": lambda: make_pipeline(PowerTransformer(), forest()),
    "quantiles": lambda: make_pipeline(QuantileTransformer(n_quantiles=10), forest()),
    "polynomial": lambda: make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression()),
    "principal components": lambda: make_pipeline(StandardScaler(), PCA(4), forest()),
    "k best": lambda: make_pipeline(SelectKBest(k=5), forest()),
    "from a model": lambda: make_pipeline(SelectFromModel(forest()), forest()),
    "imputer": lambda: make_pipeline(SimpleImputer(strategy="median"), forest()),
    "union": lambda: make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PCA(2))]), forest()),
    "columns": lambda: make_pipeline(
        ColumnTransformer(
            [("a", StandardScaler(), [0, 1]), ("b", MinMaxScaler(), slice(2, 5))], remainder="passthrough"
        ),
        forest(),
    ),
    "nested pipelines": lambda: Pipeline([("before", _scaled(PCA(4))), ("model", forest())]),
}

REGRESSORS: dict[str, Callable[[], Any]] = {
    "random forest": lambda: RandomForestRegressor(3, max_depth=3, random_state=0),
    "extra trees": lambda: ExtraTreesRegressor(3, max_depth=3, random_state=0),
    "decision tree": lambda: DecisionTreeRegressor(max_depth=3, random_state=0),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=2, loss="huber", random_state=0),
    "hist gradient boosting": lambda: HistGradientBoostingRegressor(max_iter=2, loss="poisson", random_state=0),
    "linear": LinearRegression,
    "ridge": lambda: _scaled(Ridge()),
    "poisson": lambda: _scaled(PoissonRegressor()),
    "svr": lambda: _scaled(SVR()),
    "neighbours": KNeighborsRegressor,
    "scaled target": lambda: TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
    "voting": lambda: VotingRegressor([("a", LinearRegression()), ("b", DecisionTreeRegressor(max_depth=3))]),
}


@functools.cache
def fitted(kind: str, *, regressor: bool = False) -> Any:
    """Return the model of that *kind*, fitted; the same one each time."""
    table, quality = wines()
    if regressor:
        return REGRESSORS[kind]().fit(table, quality + 0.25)
    return CLASSIFIERS[kind]().fit(table, quality)


def dumped(model: Any, path: Path, compress: Any = 0) -> Path:
    """Write *model* to *path* as joblib does."""
    joblib.dump(model, path, compress=compress)
    return path


# Pickles, opcode by opcode --------------------------------------------------------------------------------------------


class Touch:
    """Pickles as a call of *function* with *arguments*: what runs if a loader lets it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def text(value: str) -> bytes:
    """Return the opcode that puts *value* on the stack."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def name(module: str, attribute: str) -> bytes:
    """Return the opcode that imports *attribute*."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def stack_name(module: str, attribute: str) -> bytes:
    """Return the opcodes by which protocol 4 imports *attribute*."""
    return text(module) + text(attribute) + b"\x93"


def program(*steps: bytes, protocol: int = 4) -> bytes:
    """Return the whole pickle of *steps*."""
    return b"\x80" + bytes([protocol]) + b"".join(steps) + b"."


def object_array_around(inner: bytes) -> bytes:
    """Return a joblib file of one array of objects, whose elements are the pickle *inner*."""
    wrapper = NumpyArrayWrapper(np.ndarray, (1,), "C", np.dtype("O"))
    # Protocol 3, as the frames of 4 would have to end where the inner pickle begins.
    return pickle.dumps(wrapper, 3).removesuffix(b".") + inner + b"."


def attacks(canary: Path) -> dict[str, bytes]:
    """Return files that would create *canary* when a loader runs what is in them, by the trap that they lay."""
    command = f"touch {canary}"
    shell = text(command) + b"\x85R"
    source = f"open({str(canary)!r}, 'w')"
    forest_class = name("sklearn.ensemble._forest", "RandomForestClassifier")
    return {
        "GLOBAL": program(name("os", "system"), shell, protocol=2),
        "GLOBAL posix": program(name("posix", "system"), shell),
        "STACK_GLOBAL": program(stack_name("os", "system"), shell),
        "INST": program(b"(", text(command), b"ios\nsystem\n"),
        "OBJ": program(b"(", name("os", "system"), text(command), b"o"),
        "NEWOBJ": program(name("subprocess", "Popen"), b"((", text("touch"), text(str(canary)), b"ltt\x81"),
        "NEWOBJ_EX": program(name("subprocess", "Popen"), b")", b"}", text("args"), text(command), b"s\x92"),
        "builtins.eval": program(name("builtins", "eval"), text(source), b"\x85R"),
        "__builtin__.exec": program(name("__builtin__", "exec"), text(source), b"\x85R", protocol=2),
        "dotted name in an allowed module": program(stack_name("joblib.numpy_pickle", "os.system"), shell),
        "dotted name of an allowed type": program(
            stack_name("sklearn.pipeline", "Pipeline.__init__.__globals__"), text("x"), b"\x86"
        ),
        "numpy's runstring": program(name("numpy.testing._private.utils", "runstring"), text(source), b"}\x86R"),
        "numpy.load": program(name("numpy", "load"), text(str(canary)), b"\x85R"),
        "joblib.load": program(name("joblib", "load"), text(str(canary)), b"\x85R"),
        "functools.partial": program(name("functools", "partial"), name("os", "system"), text(command), b"\x86R"),
        "builtins.getattr": program(name("builtins", "getattr"), name("numpy", "ndarray"), text("dump"), b"\x86R"),
        "operator.attrgetter": program(name("operator", "attrgetter"), text("os.system"), b"\x85R"),
        "operator.methodcaller": program(name("operator", "methodcaller"), text("x"), b"\x85R"),
        "importlib": program(name("importlib", "import_module"), text("antigravity"), b"\x85R"),
        "code object": program(name("types", "CodeType"), b")R"),
        "persistent id": b"\x80\x02Pos.system\n.",
        "binary persistent id": program(text("os.system"), b"Q"),
        "extension registry": program(b"\x82\x01", shell),
        "large extension registry": program(b"\x84\x01\x00\x00\x00", shell),
        "nested in an array": object_array_around(program(name("os", "system"), shell)),
        "nested twice": object_array_around(object_array_around(program(name("os", "system"), shell))),
        "INST nested in an array": object_array_around(program(b"(", text(command), b"ios\nsystem\n")),
        "BUILD on a class": program(forest_class, b"}", text("predict"), name("sklearn.pipeline", "Pipeline"), b"sb"),
        "BUILD on a class, nested": object_array_around(
            program(forest_class, b"}", text("predict"), name("sklearn.pipeline", "Pipeline"), b"sb")
        ),
        "BUILD on a class, by slots": program(forest_class, b"N}", text("predict"), b"Ns\x86b"),
        "BUILD on a function": program(name("sklearn.feature_selection._univariate_selection", "f_classif"), b"}b"),
        "method hidden by an attribute": program(forest_class, b")\x81}", text("predict"), forest_class, b"sb"),
        "special attribute": program(forest_class, b")\x81}", text("__class__"), forest_class, b"sb"),
        "REDUCE of a class": program(forest_class, b")R"),
        "REDUCE of an instance": program(forest_class, b")\x81)R"),
        "REDUCE of a function only mentioned": program(
            name("sklearn.metrics._classification", "accuracy_score"), b")R"
        ),
        "NEWOBJ of a C type": program(name("sklearn.tree._tree", "Tree"), b")\x81"),
        "newObj of another type": program(name("sklearn.neighbors._kd_tree", "newObj"), forest_class, b"\x85R"),
        "append to an attribute": program(forest_class, b")\x81}", text("append"), forest_class, b"sbNa"),
        "items of an instance": program(forest_class, b")\x81", text("a"), b"Ns"),
        "joblib's old array": program(
            name("joblib.numpy_pickle", "NDArrayWrapper"), b")\x81}", text("filename"), text(str(canary)), b"sb"
        ),
        "joblib's old compressed array": program(name("joblib.numpy_pickle", "ZNDArrayWrapper"), b")\x81"),
        "joblib's old file": b"ZF" + b"0x15".ljust(19) + program(name("os", "system"), shell, protocol=2),
        "joblib's hidden pickler": pickle.dumps(Touch(joblib.load, str(canary)), 4),
        "protocol 0": pickle.dumps(Touch(print, "x"), 0),
        "encoded text": program(name("_codecs", "encode"), text("x"), text("rot13"), b"\x86R"),
        "slots of an instance": program(forest_class, b")\x81N}", text("predict"), b"Ns\x86b"),
    }


def bombs() -> dict[str, bytes]:
    """Return small files that would take very much time or memory."""
    # A tuple of twice a tuple of twice a tuple …: its hash takes 2**60 steps.
    tuples = b"K\x01" + b"".join(b"\x94h" + bytes([level]) + b"\x86" for level in range(60)) + b"\x94"
    return {
        "long frame": program(b"\x95" + struct.pack("<Q", 2**62)),
        "long bytes": program(b"\x8e" + struct.pack("<Q", 2**62)),
        "long bytearray": program(b"\x96" + struct.pack("<Q", 2**62)),
        "long text": program(b"\x8d" + struct.pack("<Q", 2**40)),
        "long array": program(
            name("joblib.numpy_pickle", "NumpyArrayWrapper"),
            b")\x81}(",
            text("subclass") + name("numpy", "ndarray"),
            text("shape") + b"\x8a\x06" + (2**44).to_bytes(6, "little") + b"\x85",
            text("order") + text("C"),
            text("dtype") + name("numpy", "dtype") + text("f8") + b"\x89\x88\x87R",
            b"ub",
        ),
        "long integer": program(b"\x8b" + struct.pack("<i", 2**31 - 1)),
        "nested tuples as a key": program(tuples, b"}h\x3cNs"),
        "nested tuples in a set": program(tuples, b"\x8f(h\x3c\x90"),
        "integers of one hash": program(b"}(", *_colliding(2000), b"u"),
        "arrays in arrays": program(_nested_arrays(40)),
        "pickles in pickles": _nested_pickles(40),
        "one array many times": program(_copied_array(64, 100_000)),
        "steps": program(b"N0" * 3_000_000),
    }


def _colliding(count: int) -> list[bytes]:
    modulus = 2**61 - 1
    return [b"\x8a\x0a" + (modulus * (index + 1)).to_bytes(10, "little") + b"N" for index in range(count)]


def _dtype(kind: str) -> bytes:
    return name("numpy", "dtype") + text(kind) + b"\x89\x88\x87R"


def _empty_array() -> bytes:
    return name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def _nested_arrays(depth: int) -> bytes:
    inner = b"N"
    for _ in range(depth):
        inner = _empty_array() + b"(K\x01K\x01\x85" + _dtype("O8") + b"\x89](" + inner + b"et" + b"b"
    return inner


def _nested_pickles(depth: int) -> bytes:
    inner = program(b"N")
    for _ in range(depth):
        inner = object_array_around(inner)
    return inner


def _copied_array(times: int, size: int) -> bytes:
    content = b"B" + struct.pack("<I", size) + bytes(size) + b"\x940"
    one = _empty_array() + b"(K\x01J" + struct.pack("<i", size) + b"\x85" + _dtype("u1") + b"\x89h\x00tb"
    return content + b"](" + one * times + b"e"


def array_built_twice() -> bytes:
    """Return a pickle that gives an array another content after it was made."""
    state = b"(K\x01K\x01\x85" + _dtype("u1") + b"\x89C\x01xtb"
    return program(_empty_array(), state, state)


# Broken trees ---------------------------------------------------------------------------------------------------------


def with_nodes(model: Any, change: Callable[[Any, dict[str, Any]], None]) -> bytes:
    """Return the file of *model*, a decision tree, whose nodes and state are what *change* made of them."""
    tree = model.tree_
    state = tree.__getstate__()
    state = {**state, "nodes": state["nodes"].copy(), "values": state["values"].copy()}
    change(state["nodes"], state)
    return joblib_bytes(changed(model, tree_=Reduced(type(tree), (tree.n_features, tree.n_classes, 1), state)))


def changed(model: Any, **attributes: Any) -> Any:
    """Return a copy of *model* with other attributes."""
    copy = object.__new__(type(model))
    copy.__dict__.update({**vars(model), **attributes})
    return copy


def joblib_bytes(model: Any) -> bytes:
    """Return the file that joblib writes for *model*."""
    target = io.BytesIO()
    joblib.dump(model, target)
    return target.getvalue()


class Reduced:
    """Pickles as a call and a state, of whatever is wanted."""

    def __init__(self, called: Any, arguments: tuple[Any, ...], state: Any) -> None:
        self.parts = called, arguments, state

    def __reduce__(self) -> Any:
        return self.parts
