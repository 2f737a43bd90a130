"""The restricted loader: honest models load and predict the same, and nothing else is ever run."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.unit.serving import crafted
from wine_api.errors import ModelRejected
from wine_api.serving import model_names, rebuilding, unpickling
from wine_api.serving.unpickling import load, unpickle

CAP = 64 * 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.joblib"


def refusal(path: Path, content: bytes, **options: Any) -> ModelRejected:
    """Return the error with which a file of *content* is refused."""
    path.write_bytes(content)
    with pytest.raises(ModelRejected) as refused:
        load(path, **{"max_bytes": CAP, **options})
    return refused.value


def assert_same_answers(loaded: Any, model: Any) -> None:
    table, _ = crafted.wines()
    assert np.array_equal(loaded.predict(table), model.predict(table))
    assert hasattr(loaded, "predict_proba") == hasattr(model, "predict_proba")
    if hasattr(model, "predict_proba"):
        assert np.array_equal(loaded.predict_proba(table), model.predict_proba(table))


class TestHonestModels:
    @pytest.mark.parametrize("kind", crafted.CLASSIFIERS)
    def test_classifier_answers_as_it_does_with_joblib(self, kind: str, path: Path) -> None:
        crafted.dumped(crafted.fitted(kind), path)

        assert_same_answers(load(path, max_bytes=CAP), joblib.load(path))

    @pytest.mark.parametrize("kind", crafted.REGRESSORS)
    def test_regressor_answers_as_it_does_with_joblib(self, kind: str, path: Path) -> None:
        crafted.dumped(crafted.fitted(kind, regressor=True), path)

        assert_same_answers(load(path, max_bytes=CAP), joblib.load(path))

    @pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
    @pytest.mark.parametrize("kind", ["scaled forest", "gradient boosting", "grid search"])
    def test_every_codec_of_joblib_loads(self, kind: str, compress: Any, path: Path) -> None:
        model = crafted.fitted(kind)
        crafted.dumped(model, path, compress)

        assert_same_answers(load(path, max_bytes=CAP), model)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("kind", ["random forest", "hist gradient boosting", "neighbours", "grid search", "svc"])
    def test_every_protocol_of_pickle_loads(self, kind: str, protocol: int, path: Path) -> None:
        model = crafted.fitted(kind)
        path.write_bytes(pickle.dumps(model, protocol))

        assert_same_answers(load(path, max_bytes=CAP), model)

    def test_names_of_numpy_1_load(self, path: Path) -> None:
        content = pickle.dumps(crafted.fitted("random forest"), 2)
        path.write_bytes(content.replace(b"numpy._core.", b"numpy.core."))

        assert_same_answers(load(path, max_bytes=CAP), crafted.fitted("random forest"))

    def test_arrays_that_were_mapped_load_as_arrays(self, path: Path, tmp_path: Path) -> None:
        mapped = np.memmap(tmp_path / "array", dtype="f8", mode="w+", shape=(3, 2))
        path.write_bytes(crafted.joblib_bytes({"array": mapped}))

        assert type(load(path, max_bytes=CAP)["array"]) is np.ndarray

    def test_words_as_classes_load(self, path: Path) -> None:
        model = crafted.fitted_forest(classes=np.array(["bad", "good", "fine"], dtype=object))
        crafted.dumped(model, path)

        assert_same_answers(load(path, max_bytes=CAP), model)

    def test_other_byte_order_loads_as_ours(self, path: Path) -> None:
        path.write_bytes(crafted.joblib_bytes({"array": np.arange(3, dtype=">i4"), "number": np.dtype(">f8").type(2)}))

        array = load(path, max_bytes=CAP)["array"]

        assert array.tolist() == [0, 1, 2]
        assert array.dtype.isnative

    def test_random_generators_are_new_ones(self, path: Path) -> None:
        generator = np.random.RandomState(5)
        generator.rand(100)
        path.write_bytes(pickle.dumps({"one": generator, "other": np.random.default_rng(3)}))

        loaded = load(path, max_bytes=CAP)

        assert loaded["one"].randint(1000) == np.random.RandomState(0).randint(1000)
        assert isinstance(loaded["other"], np.random.Generator)

    def test_versions_of_writers_are_told(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(crafted.fitted("decision tree"), 2).replace(b"1.9.1", b"1.7.0"))

        writers = unpickle(path, max_bytes=CAP).writers

        assert writers == {("sklearn.tree._classes.DecisionTreeClassifier", "1.7.0")}

    def test_all_allowed_names_exist(self) -> None:
        for module, name in model_names.allowed_names():
            assert model_names._import((module, name)) is not None

    def test_all_calls_and_states_are_of_allowed_names(self) -> None:
        allowed = {".".join(name) for name in model_names.allowed_names()}
        special = {name for name in (*rebuilding.CALLS, *rebuilding.STATES) if isinstance(name, str)}

        assert special <= allowed


class TestAttacks:
    @pytest.mark.parametrize("trap", crafted.attacks(Path("canary")))
    def test_nothing_runs(self, trap: str, path: Path, tmp_path: Path) -> None:
        canary = tmp_path / "canary"

        error = refusal(path, crafted.attacks(canary)[trap])

        assert error.gate == "unpickling"
        assert error.reason in {"type_not_allowed", "unsafe_pickle", "legacy_format", "not_a_model_file"}
        assert not canary.exists()

    @pytest.mark.parametrize("trap", ["GLOBAL", "STACK_GLOBAL", "nested in an array"])
    @pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
    def test_nothing_runs_from_a_compressed_file(self, pack: Any, trap: str, path: Path, tmp_path: Path) -> None:
        canary = tmp_path / "canary"

        error = refusal(path, pack(crafted.attacks(canary)[trap]))

        assert error.reason == "type_not_allowed"
        assert not canary.exists()

    def test_attacks_are_real(self, path: Path, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        path.write_bytes(crafted.attacks(canary)["nested in an array"])

        with contextlib.suppress(AttributeError):  # of the number that the command leaves where an array should be
            joblib.load(path)

        assert canary.exists()

    def test_refused_type_is_named_and_the_path_is_not(self, path: Path) -> None:
        error = refusal(path, crafted.program(crafted.name("os", "system"), b"."))

        assert "os.system" in error.detail
        assert str(path.parent) not in error.detail

    def test_name_in_the_message_cannot_forge_a_log_line(self, path: Path) -> None:
        error = refusal(path, crafted.program(crafted.stack_name("os\n2026 INFO", "x" * 500)))

        assert re.fullmatch(r"[ -~]{1,250}", error.detail)

    def test_class_keeps_its_methods(self, path: Path, tmp_path: Path) -> None:
        before = crafted.RandomForestClassifier.predict

        refusal(path, crafted.attacks(tmp_path / "canary")["BUILD on a class, nested"])

        assert crafted.RandomForestClassifier.predict is before

    def test_shared_dtypes_stay_as_they_are(self, path: Path) -> None:
        dtype = crafted.name("numpy", "dtype") + crafted.text("f8")
        state = b"(K\x03" + crafted.text(">") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        path.write_bytes(crafted.program(dtype + b"\x89\x89\x87R" + state))

        load(path, max_bytes=CAP)

        assert np.dtype("f8").isnative

    @pytest.mark.parametrize(
        "state",
        [
            pytest.param((3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0), id="hidden object"),
            pytest.param((3, "|", None, ("a",), {"a": (np.dtype("f8"), 4)}, 8, 1, 0), id="field past the end"),
            pytest.param((3, "|", None, None, None, 10**9, 1, 0), id="other size"),
            pytest.param((3, "|", (np.dtype("f8"), (9,)), None, None, 8, 1, 0), id="array in an array type"),
        ],
    )
    def test_array_types_that_lie_are_refused(self, state: Any, path: Path) -> None:
        content = pickle.dumps(crafted.Reduced(np.dtype, ("V8", False, True), state))

        error = refusal(path, content)

        assert error.reason in {"unsafe_pickle", "incompatible_state"}

    def test_array_is_not_changed_after_it_was_made(self, path: Path) -> None:
        error = refusal(path, crafted.array_built_twice())

        assert "changes an array" in error.detail


class TestBombs:
    @pytest.mark.timeout(10)
    @pytest.mark.parametrize("bomb", crafted.bombs())
    def test_small_file_stays_small(self, bomb: str, path: Path) -> None:
        error = refusal(path, crafted.bombs()[bomb], max_bytes=2_000_000 if bomb == "one array many times" else CAP)

        assert error.reason in {
            "truncated",
            "unsafe_pickle",
            "too_large_when_decompressed",
            "too_complex",
            "corrupt",
        }

    @pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
    def test_file_that_grows_is_cut_off(self, pack: Any, path: Path) -> None:
        content = crafted.program(b"B" + (8_000_000).to_bytes(4, "little") + bytes(8_000_000))

        error = refusal(path, pack(content), max_bytes=1_000_000)

        assert error.reason in {"too_large_when_decompressed", "truncated"}

    def test_file_that_grows_in_an_array_is_cut_off(self, path: Path) -> None:
        content = lzma.compress(crafted.joblib_bytes({"array": np.zeros(1_000_000)}))

        error = refusal(path, content, max_bytes=4_000_000)

        assert error.reason == "too_large_when_decompressed"

    def test_dictionary_of_the_compressor_is_bounded(self, path: Path) -> None:
        dictionary_bytes = 3 * 2**29

        error = refusal(path, b"\x5d" + dictionary_bytes.to_bytes(4, "little") + b"\xff" * 8 + bytes(64))

        assert error.reason == "corrupt"


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            pytest.param(b"", "empty_file", id="nothing"),
            pytest.param(
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git_lfs_pointer", id="Git LFS"
            ),
            pytest.param(b"ZF0x15", "legacy_format", id="joblib 0.9"),
            pytest.param(b"ccopy_reg\n_reconstructor\n", "legacy_format", id="protocol 0"),
            pytest.param(b"\x80\x01.", "legacy_format", id="protocol 1"),
            pytest.param(b"PK\x03\x04....", "not_a_model_file", id="zip"),
            pytest.param(b"<?xml version='1.0'?><Error/>", "not_a_model_file", id="S3's error page"),
            pytest.param(b'{"model": 1}', "not_a_model_file", id="JSON"),
            pytest.param(b"\x04\x22\x4d\x18....", "unsupported_compression", id="LZ4"),
            pytest.param(b"\x80\x04N.N.", "trailing_data", id="two pickles"),
            pytest.param(b"\x80\x04NN.", "corrupt", id="two objects"),
            pytest.param(b"\x80\x04.", "corrupt", id="no object"),
            pytest.param(b"\x80\x04(.", "corrupt", id="open mark"),
            pytest.param(b"\x80\x04\x85.", "corrupt", id="tuple of nothing"),
            pytest.param(b"\x80\x04h\x09.", "corrupt", id="unknown memo"),
            pytest.param(b"\x80\x04\xff.", "corrupt", id="unknown opcode"),
            pytest.param(b"\x80\x04X\x01\x00\x00\x00\xff.", "corrupt", id="broken text"),
            pytest.param(b"\x78\x9cnothing", "corrupt", id="broken zlib"),
            pytest.param(b"\x1f\x8bnothing", "corrupt", id="broken gzip"),
            pytest.param(b"BZh9nothing", "corrupt", id="broken bz2"),
            pytest.param(b"\xfd7zXZ\x00nothing and more", "corrupt", id="broken xz"),
        ],
    )
    def test_are_refused_with_the_reason(self, content: bytes, reason: str, path: Path) -> None:
        assert refusal(path, content).reason == reason

    @pytest.mark.parametrize("compress", [0, 3, ("xz", 3)], ids=str)
    def test_truncated_anywhere_is_refused(self, compress: Any, path: Path, tmp_path: Path) -> None:
        whole = crafted.dumped(crafted.fitted("scaled forest"), tmp_path / "whole", compress).read_bytes()

        for length in np.linspace(1, len(whole) - 1, 50, dtype=int):
            assert refusal(path, whole[:length]).gate == "unpickling"

    def test_any_changed_byte_is_loaded_or_refused_but_never_raises(self, path: Path, tmp_path: Path) -> None:
        whole = crafted.dumped(crafted.fitted("svc"), tmp_path / "whole").read_bytes()
        random = np.random.RandomState(0)

        for place, value in zip(random.randint(len(whole), size=300), random.randint(256, size=300), strict=True):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(ModelRejected):
                load(path, max_bytes=CAP)

    def test_checksum_of_gzip_is_compared(self, path: Path) -> None:
        content = gzip.compress(crafted.joblib_bytes({"a": 1}))

        assert refusal(path, content[:-8] + bytes(8)).reason == "corrupt"

    def test_missing_file_is_not_the_model_s_fault(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            load(path, max_bytes=CAP)


class TestAllowedTypes:
    def test_numpy_function_is_refused_by_name(self, path: Path) -> None:
        table, quality = crafted.wines()
        model = make_pipeline(FunctionTransformer(np.log1p), crafted.forest()).fit(table, quality)

        error = refusal(path, crafted.joblib_bytes(model))

        assert (error.reason, "numpy.log1p" in error.detail) == ("type_not_allowed", True)

    def test_setting_admits_it(self, path: Path) -> None:
        table, quality = crafted.wines()
        model = make_pipeline(FunctionTransformer(np.log1p), crafted.forest()).fit(table, quality)
        crafted.dumped(model, path)

        assert_same_answers(load(path, max_bytes=CAP, extra_types=frozenset({"numpy.log1p"})), model)

    def test_setting_admits_types_that_are_called(self, path: Path) -> None:
        path.write_bytes(pickle.dumps({"limit": __import__("fractions").Fraction(1, 3)}))

        loaded = load(path, max_bytes=CAP, extra_types=frozenset({"fractions.Fraction"}))

        assert loaded["limit"] * 3 == 1

    def test_setting_for_one_file_admits_nothing_in_the_next(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(np.log1p))
        load(path, max_bytes=CAP, extra_types=frozenset({"numpy.log1p"}))

        with pytest.raises(ModelRejected, match=r"numpy\.log1p"):
            load(path, max_bytes=CAP)

    def test_allowed_name_that_is_not_installed_is_told_from_one_that_is_not_allowed(self, path: Path) -> None:
        content = crafted.program(crafted.name("sklearn.gone", "Estimator"))

        assert refusal(path, content, extra_types=frozenset({"sklearn.gone.Estimator"})).reason == "type_unknown"


def skip_the_canary(machine: Any) -> Any:
    """Take a nested pickle for what it should be, as a loader does that does not look into it."""
    machine.stream.read(len(b"\x80\x04cthis\nc\n."))
    return np.array([None], dtype=object)


class TestSelfTest:
    def test_loads_nothing_when_names_are_not_checked(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.write_bytes(crafted.program(b"N"))
        monkeypatch.setattr(unpickling._Machine, "nested", skip_the_canary)
        unpickling._prove_that_names_are_checked.cache_clear()

        with pytest.raises(unpickling.LoaderIsNotSafe):
            load(path, max_bytes=CAP)
