"""What is published is served whole or not at all, from a folder and from a bucket, whenever the publishing is cut."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.integration.s3_server import CREDENTIALS, S3Server, use_aws_environment
from tests.integration.stores.faulty_proxy import Exchange, FaultyProxy, none, reset, running_proxy
from tests.integration.stores.shelves import MODEL_KEY
from tests.models import Model, Models
from tests.unit.serving.crafted import attacks, fitted_forest, joblib_bytes
from wine_api.cli import main
from wine_api.errors import ModelRejected, ModelStoreUnavailable
from wine_api.serving.gates import Candidate, Policy, vet
from wine_api.serving.signatures import public_key_line, sign
from wine_api.serving.stores.base import (
    CARD_NAME,
    SIGNATURE_NAME,
    ModelStore,
    PublishingStore,
    StoredModel,
    version_key,
)
from wine_api.serving.stores.local import LocalStore
from wine_api.serving.stores.s3 import Patience, S3Store
from wine_api.training.publish import candidate_of, promote, upload, vetted_release

Run = Callable[..., Result]

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
POLICY = Policy(max_bytes=10_000_000)
ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"


@dataclass
class Place:
    """Where models are kept: what `--to` says, what a service sees there, and what lies there."""

    to: str
    store: PublishingStore
    put: Callable[[str, bytes], object]


@pytest.fixture(scope="module")
def new_bucket(s3: S3Server) -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: s3.create_bucket(f"publishing-{next(numbers)}")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind."""
    if request.param == "folder":
        folder = tmp_path / "folder"
        folder.mkdir()
        return Place(
            str(folder), LocalStore(folder, model_key=MODEL_KEY), lambda key, content: _put(folder / key, content)
        )
    s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("new_bucket")()
    use_aws_environment(request.getfixturevalue("monkeypatch"), s3.url)
    store = S3Store(bucket, model_key=MODEL_KEY)
    return Place(f"s3://{bucket}/", store, lambda key, content: s3.put(bucket, key, content))


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def run() -> Run:
    runner = CliRunner()
    return lambda *arguments, **environ: runner.invoke(main, [str(argument) for argument in arguments], env=environ)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Model, str], Path]:
    """Writes a model with its card as `wine-api train` does, and returns the path of the model."""

    def write(model: Model, version: str) -> Path:
        file = tmp_path_factory.mktemp("trained") / "wine_quality_model.joblib"
        file.write_bytes(model.content)
        file.with_name(CARD_NAME).write_bytes(model.card(file, version))
        return file

    return write


@pytest.fixture(scope="module")
def first(models: Models, folder_of: Callable[[Model, str], Path]) -> Path:
    """Version 1.0."""
    return folder_of(models.fives_and_sixes, "1.0")


@pytest.fixture(scope="module")
def second(models: Models, folder_of: Callable[[Model, str], Path]) -> Path:
    """Version 2.0."""
    return folder_of(models.sevens_and_eights, "2.0")


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of keys."""
    folder = tmp_path_factory.mktemp("keys")
    assert CliRunner().invoke(main, ["keys", "--output", str(folder)]).exit_code == 0
    return folder


def untried(candidate: Candidate, policy: Policy) -> None:
    """Stand for the trial of a model that is known to be good."""


def publish(store: PublishingStore, file: Path, key: Ed25519PrivateKey | None = KEY) -> None:
    """Publish as the command does, but for the trial."""
    with vetted_release(candidate_of(file), POLICY, untried, version=None, key=key) as release:
        upload(store, release)
        promote(store, release.version, POLICY)


def downloaded(store: ModelStore, model: StoredModel, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    store.download(model, folder / "arrived.joblib", max_bytes=model.size, deadline=math.inf)
    return folder / "arrived.joblib"


def vet_latest(store: ModelStore, folder: Path, *trusted: Ed25519PublicKey) -> str:
    """Vet what is the latest as a service that trusts these keys, and return the reason why it is refused, or ''."""
    model = store.latest()
    file = downloaded(store, model, folder)
    candidate = Candidate(file, card=store.card(model), signature=store.signature(model))
    try:
        vet(candidate, Policy(max_bytes=10_000_000, public_keys=trusted))
    except ModelRejected as refused:
        return refused.reason
    return ""


class TestTheCommand:
    def test_publishes_what_a_service_then_sees_whole(
        self, run: Run, place: Place, first: Path, tmp_path: Path
    ) -> None:
        result = run("publish", first, "--to", place.to, "--version", "1.0")

        latest = place.store.latest()
        assert result.exit_code == 0, result.output
        assert "latest: nothing -> 1.0" in result.stdout
        assert "Uploading" in result.stderr
        assert latest.version == "1.0"
        assert downloaded(place.store, latest, tmp_path / "arrived").read_bytes() == first.read_bytes()
        assert place.store.card(latest) == first.with_name(CARD_NAME).read_bytes()
        assert place.store.signature(latest) is None

    def test_signs_and_a_service_with_the_public_key_accepts_it(
        self, run: Run, place: Place, first: Path, key_files: Path, tmp_path: Path
    ) -> None:
        private, public = key_files / "model-signing.key", (key_files / "model-signing.pub").read_text()

        result = run("publish", first, "--to", place.to, "--key", private, MODEL_PUBLIC_KEYS=public)
        checked = run("verify", downloaded_version(place, "1.0", tmp_path), MODEL_PUBLIC_KEYS=public)

        assert result.exit_code == 0, result.output
        assert checked.exit_code == 0, checked.output
        assert "signed by a key that is trusted" in checked.stdout

    def test_repeated_it_finds_everything_done(self, run: Run, place: Place, first: Path) -> None:
        publish(place.store, first, key=None)

        result = run("publish", first, "--to", place.to)

        assert result.exit_code == 0, result.output
        assert "already, the same bytes" in result.stdout
        assert [model.version for model in place.store.versions()] == ["1.0"]

    def test_without_promotion_nothing_else_is_served(self, run: Run, place: Place, first: Path, second: Path) -> None:
        publish(place.store, first)
        served = place.store.latest()

        result = run("publish", second, "--to", place.to, "--no-promote")

        assert result.exit_code == 0, result.output
        assert f"latest is still 1.0. To change that:\n  wine-api promote 2.0 --to {place.to}\n" in result.stdout
        assert place.store.latest() == served
        assert place.store.find("2.0").size == second.stat().st_size

    def test_never_puts_another_model_under_a_version(
        self, run: Run, place: Place, first: Path, models: Models, folder_of: Callable[[Model, str], Path]
    ) -> None:
        publish(place.store, first)
        served = place.store.latest()

        result = run("publish", folder_of(models.sevens_and_eights, "1.0"), "--to", place.to)

        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == "Error: The version 1.0 exists already, and versions never change."
        assert place.store.latest() == served
        assert place.store.find("1.0").size == first.stat().st_size

    def test_promotes_back_and_forth(self, run: Run, place: Place, first: Path, second: Path, tmp_path: Path) -> None:
        publish(place.store, first)
        publish(place.store, second)

        back = run("promote", "1.0", "--to", place.to)
        between = downloaded(place.store, place.store.latest(), tmp_path / "between").read_bytes()
        forth = run("promote", "2.0", "--to", place.to)

        assert (back.exit_code, forth.exit_code) == (0, 0)
        assert "latest: 2.0 -> 1.0" in back.stdout
        assert f"wine-api promote 2.0 --to {place.to}" in back.stdout
        assert between == first.read_bytes()
        assert place.store.latest().version == "2.0"

    def test_publishes_without_a_card_on_demand(self, run: Run, place: Place, first: Path, tmp_path: Path) -> None:
        command = ["publish", first, "--to", place.to, "--without-card", "--version", "1.5"]

        result = run(*command)
        again = run(*command)

        latest = place.store.latest()
        assert result.exit_code == 0, result.output
        assert again.exit_code == 0, again.output
        assert "already, the same bytes" in again.stdout
        assert latest.version == "1.5"
        assert place.store.card(latest) is None
        assert downloaded(place.store, latest, tmp_path / "arrived").read_bytes() == first.read_bytes()


def downloaded_version(place: Place, version: str, folder: Path) -> Path:
    """Bring a version with its card and signature to disk, as an operator who wants to look at it does."""
    model = place.store.find(version)
    file = downloaded(place.store, model, folder / "version")
    file.with_name(CARD_NAME).write_bytes(place.store.card(model) or b"")
    file.with_name(SIGNATURE_NAME).write_bytes(place.store.signature(model) or b"")
    return file


class TestSignatures:
    def test_a_signed_model_is_accepted_by_who_trusts_the_key(self, place: Place, first: Path, tmp_path: Path) -> None:
        publish(place.store, first, KEY)

        assert vet_latest(place.store, tmp_path / "arrived", KEY.public_key()) == ""

    def test_an_unsigned_one_is_not(self, place: Place, first: Path, tmp_path: Path) -> None:
        publish(place.store, first, key=None)

        assert vet_latest(place.store, tmp_path / "arrived", KEY.public_key()) == "unsigned"

    def test_nor_one_signed_by_somebody_else(self, place: Place, first: Path, tmp_path: Path) -> None:
        publish(place.store, first, Ed25519PrivateKey.from_private_bytes(b"x" * 32))

        assert vet_latest(place.store, tmp_path / "arrived", KEY.public_key()) == "bad_signature"

    def test_nor_one_whose_card_was_changed_after_it_was_signed(
        self, place: Place, first: Path, tmp_path: Path
    ) -> None:
        publish(place.store, first, KEY)
        card = json.loads(first.with_name(CARD_NAME).read_text()) | {"metrics": {"accuracy": 1.0}}

        place.put(version_key("1.0", CARD_NAME), json.dumps(card).encode())

        assert vet_latest(place.store, tmp_path / "arrived", KEY.public_key()) == "bad_signature"

    def test_nor_one_that_was_put_in_its_place_by_hand(
        self, place: Place, first: Path, models: Models, tmp_path: Path
    ) -> None:
        publish(place.store, first, KEY)

        place.put(MODEL_KEY, models.sevens_and_eights.content)

        assert vet_latest(place.store, tmp_path / "arrived", KEY.public_key()) == "unsigned"


class TestVerify:
    @pytest.mark.parametrize(
        ("content", "gate", "reason"),
        [
            pytest.param(attacks(Path("canary"))["STACK_GLOBAL"], "unpickling", "type_not_allowed", id="code"),
            pytest.param(
                (ARTIFACTS / "1.3.2/forest.joblib").read_bytes(), "libraries", "trees_of_another_version", id="1.3.2"
            ),
            pytest.param(joblib_bytes(fitted_forest(features=13)), "shape", "wrong_feature_count", id="13 features"),
            pytest.param(joblib_bytes(fitted_forest())[:-500], "unpickling", "truncated", id="cut off"),
            pytest.param(
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "unpickling", "git_lfs_pointer", id="LFS"
            ),
        ],
    )
    def test_names_the_gate_that_refuses_a_file(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, gate: str, reason: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "model.joblib").write_bytes(content)

        result = run("verify", "model.joblib", "--json")

        gates = {answer["gate"]: answer for answer in json.loads(result.stdout)["gates"]}
        assert result.exit_code == 1
        assert (gates[gate]["outcome"], gates[gate]["reason"]) == ("refused", reason)
        assert gates["trial"]["outcome"] == "refused"
        assert not (tmp_path / "canary").exists()

    def test_a_plain_upload_would_be_served(self, run: Run, tmp_path: Path, models: Models) -> None:
        (tmp_path / "model.joblib").write_bytes(models.fives_and_sixes.content)

        result = run("verify", tmp_path / "model.joblib")

        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1] == "It would be served."

    def test_a_card_changed_after_it_was_signed_is_refused(self, run: Run, tmp_path: Path, models: Models) -> None:
        file, card = tmp_path / "model.joblib", tmp_path / CARD_NAME
        file.write_bytes(models.fives_and_sixes.content)
        card.write_bytes(models.fives_and_sixes.card(file, "1.0"))
        (tmp_path / SIGNATURE_NAME).write_bytes(sign(card.read_bytes(), KEY))

        card.write_bytes(card.read_bytes().replace(b"0.75", b"0.95"))
        result = run("verify", file, "--public-keys", public_key_line(KEY.public_key()))

        assert result.exit_code == 1
        assert result.stdout.splitlines()[3].split()[:3] == ["signature", "refused", "bad_signature"]


class TestTroubleWithTheStore:
    def test_a_bucket_that_does_not_exist_is_named_in_one_line(
        self, run: Run, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_aws_environment(monkeypatch, s3.url)

        result = run("promote", "1.0", "--to", "s3://nobodys")

        assert result.exit_code == 1
        assert result.output == "Error: The bucket nobodys does not exist.\n"

    def test_no_secret_is_shown_when_nothing_answers(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        use_aws_environment(monkeypatch, "http://127.0.0.1:9")

        result = run("promote", "1.0", "--to", "s3://wines")

        assert result.exit_code == 1
        assert result.output == "Error: S3 cannot be reached.\n"
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in result.output


# What a publish that is not cut asks of S3: 7 requests for the version, 4 to see that it is whole, and the copy between
# two looks.
REQUESTS = 13
VERSION_REQUESTS = 7


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with running_proxy(s3.url) as proxy:
        yield proxy


class TestCutsOfABucket:
    @pytest.fixture
    def near(
        self, s3: S3Server, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch, first: Path
    ) -> S3Store:
        """A bucket whose latest is version 1.0, as services see it."""
        use_aws_environment(monkeypatch, s3.url)
        store = S3Store(new_bucket(), model_key=MODEL_KEY)
        publish(store, first)
        return store

    @pytest.fixture
    def far(self, near: S3Store, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
        """The same bucket, as it is seen by who publishes through the proxy."""
        proxy.forget()
        use_aws_environment(monkeypatch, proxy.url)
        bucket = near.location(near.latest())["bucket"]
        assert bucket is not None
        return S3Store(bucket, model_key=MODEL_KEY, patience=Patience(attempts=1))

    def test_are_made_at_every_request(self, far: S3Store, proxy: FaultyProxy, second: Path) -> None:
        publish(far, second)

        assert len(proxy.requests) == REQUESTS

    @pytest.mark.parametrize("answered", range(REQUESTS))
    def test_leave_what_was_served_and_can_be_repeated(
        self, near: S3Store, far: S3Store, proxy: FaultyProxy, second: Path, answered: int
    ) -> None:
        served = near.latest()

        proxy.break_answers(after(answered))
        with pytest.raises(ModelStoreUnavailable):
            publish(far, second)
        left, versions = near.latest(), near.versions()
        proxy.heal()
        publish(far, second)

        # Only a copy that was made, and whose answer got lost, is served: it is whole.
        assert left == served or (left.version == "2.0" and answered >= REQUESTS - 2)
        assert all(near.card(model) is not None and near.signature(model) is not None for model in versions)
        assert ("2.0" in [model.version for model in versions]) == (answered >= VERSION_REQUESTS - 1)
        assert near.latest().version == "2.0"
        assert near.card(near.latest()) == second.with_name(CARD_NAME).read_bytes()
        assert near.signature(near.latest()) == sign(second.with_name(CARD_NAME).read_bytes(), KEY)


def after(answered: int) -> Callable[[Exchange], None]:
    """Reset every connection after so many answers. What was asked then is done, but nobody learns of it."""
    answers = itertools.count()

    def fault(exchange: Exchange) -> None:
        (none if next(answers) < answered else reset)(exchange)

    return fault


# Publishes into copies of a folder, each time in a process that is killed one step later.
PUBLISH_UNTIL_KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from wine_api.serving.gates import Policy
from wine_api.serving.stores.local import LocalStore
from wine_api.training.publish import candidate_of, promote, upload, vetted_release

file, template, copies, model_key = sys.argv[1:]
policy = Policy(max_bytes=10_000_000)

def kill_at(step, folder):
    events = itertools.count()
    def hook(event, arguments):
        changes = event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate")
        if changes and str(arguments[0]).startswith(folder) and next(events) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    return hook

with vetted_release(candidate_of(Path(file)), policy, lambda *_: None, version=None, key=None) as release:
    for step in itertools.count():
        folder = shutil.copytree(template, os.path.join(copies, f"{step:03}"))
        child = os.fork()
        if child == 0:
            sys.addaudithook(kill_at(step, folder))
            store = LocalStore(Path(folder), model_key=model_key)
            upload(store, release)
            promote(store, release.version, policy)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, first: Path) -> Path:
    """A folder whose latest is version 1.0."""
    folder = tmp_path_factory.mktemp("template")
    publish(LocalStore(folder, model_key=MODEL_KEY), first, key=None)
    return folder


@pytest.fixture(scope="module")
def cut_folders(tmp_path_factory: pytest.TempPathFactory, template: Path, second: Path) -> list[LocalStore]:
    """Copies of that folder, into each of which publishing version 2.0 was killed one step later."""
    copies = tmp_path_factory.mktemp("copies")
    subprocess.run(
        [sys.executable, "-c", PUBLISH_UNTIL_KILLED, str(second), str(template), str(copies), MODEL_KEY], check=True
    )
    *cut, complete = sorted(copies.iterdir())
    assert LocalStore(complete, model_key=MODEL_KEY).latest().version == "2.0"
    return [LocalStore(folder, model_key=MODEL_KEY) for folder in cut]


class TestCutsOfAFolder:
    def test_are_made_at_every_step(self, cut_folders: list[LocalStore]) -> None:
        assert len(cut_folders) > 10

    def test_leave_what_was_served(
        self, cut_folders: list[LocalStore], first: Path, second: Path, tmp_path: Path
    ) -> None:
        for number, store in enumerate(cut_folders):
            latest = store.latest()
            source = first if latest.version == "1.0" else second
            assert downloaded(store, latest, tmp_path / str(number)).read_bytes() == source.read_bytes()
            assert store.card(latest) == source.with_name(CARD_NAME).read_bytes()

    def test_leave_no_version_that_is_not_whole(self, cut_folders: list[LocalStore], second: Path) -> None:
        for store in cut_folders:
            for model in store.versions():
                assert model.version == "1.0" or store.card(model) == second.with_name(CARD_NAME).read_bytes()

    def test_can_be_repeated(self, cut_folders: list[LocalStore], second: Path) -> None:
        for store in cut_folders:
            publish(store, second, key=None)

        assert {store.latest().version for store in cut_folders} == {"2.0"}
        assert {len(store.versions()) for store in cut_folders} == {2}
