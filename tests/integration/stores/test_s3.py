"""What only a bucket has: VersionIds, a network in between, and clients that must not cross a fork."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.s3_server import running_s3, use_aws_environment
from tests.integration.stores import faulty_proxy as faults
from tests.integration.stores.conftest import Far
from tests.integration.stores.faulty_proxy import Fault, FaultyProxy
from tests.integration.stores.shelves import CONTENT, MODEL_KEY, S3Shelf, card_for
from wine_api.errors import ModelStoreUnavailable, ModelVersionNotFound
from wine_api.serving.stores.base import ARTIFACT_NAME, CARD_NAME, StoredModel, VersionExists, version_key
from wine_api.serving.stores.s3 import Patience, S3Store

# Short, as the tests wait for it to pass.
IMPATIENT = Patience(connect=0.2, read=0.2, attempts=1, call=0.5)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "arrived"


def open_anew(shelf: S3Shelf, **settings: str) -> S3Store:
    """Open the bucket of *shelf* with whatever the environment says now."""
    return S3Store(shelf.bucket, **{"model_key": MODEL_KEY, **settings}, patience=Patience(attempts=1))


def download(store: S3Store, model: StoredModel, destination: Path, seconds: float = 10) -> None:
    store.download(model, destination, max_bytes=1_000_000, deadline=time.monotonic() + seconds)


class TestNames:
    def test_a_plain_upload_is_called_by_its_version_id(self, bucket: S3Shelf) -> None:
        version_id = bucket.server.put(bucket.bucket, MODEL_KEY, CONTENT)

        model = bucket.store.latest()

        assert model.version == model.version_id == version_id
        assert bucket.store.location(model) == {
            "kind": "s3",
            "bucket": bucket.bucket,
            "key": MODEL_KEY,
            "version_id": version_id,
        }

    def test_a_plain_upload_without_versioning_has_no_name(self, plain_bucket: S3Shelf) -> None:
        plain_bucket.put(MODEL_KEY, CONTENT)

        model = plain_bucket.store.latest()

        assert (model.version, model.version_id) == (None, None)

    def test_an_upload_can_carry_its_version_as_metadata(self, bucket: S3Shelf) -> None:
        bucket.server.put(bucket.bucket, MODEL_KEY, CONTENT, {"model-version": "2026-11"})

        model = bucket.store.latest()

        assert model.version == "2026-11"
        assert bucket.store.find("2026-11") == model

    @pytest.mark.parametrize("name", ["../../etc", "latest", "a b", "=?UTF-8?b?w6k=?="])
    def test_metadata_that_cannot_be_a_version_is_not_one(self, bucket: S3Shelf, name: str) -> None:
        version_id = bucket.server.put(bucket.bucket, MODEL_KEY, CONTENT, {"model-version": name})

        assert bucket.store.latest().version == version_id

    def test_an_older_upload_is_found_by_its_version_id(self, bucket: S3Shelf, destination: Path) -> None:
        older = bucket.server.put(bucket.bucket, MODEL_KEY, b"older")
        bucket.server.put(bucket.bucket, MODEL_KEY, b"newer")

        model = bucket.store.find(str(older))

        download(bucket.store, model, destination)
        assert model.version == model.version_id == older
        assert destination.read_bytes() == b"older"

    def test_an_older_upload_is_found_after_the_newest_was_deleted(self, bucket: S3Shelf) -> None:
        older = bucket.server.put(bucket.bucket, MODEL_KEY, b"older")
        bucket.delete(MODEL_KEY)

        assert bucket.store.find(str(older)).version_id == older

    def test_the_mark_that_a_deletion_leaves_is_not_a_version(self, bucket: S3Shelf) -> None:
        bucket.put(MODEL_KEY, CONTENT)
        mark = bucket.server.client().delete_object(Bucket=bucket.bucket, Key=MODEL_KEY)["VersionId"]

        with pytest.raises(ModelVersionNotFound):
            bucket.store.find(mark)

    def test_null_is_not_a_version(self, plain_bucket: S3Shelf) -> None:
        plain_bucket.put(MODEL_KEY, CONTENT)

        with pytest.raises(ModelVersionNotFound):
            plain_bucket.store.find("null")

    def test_a_key_in_a_version_folder_is_that_version(self, bucket: S3Shelf) -> None:
        bucket.publish("1.0", b"one")
        bucket.publish("2.0", b"two")

        model = open_anew(bucket, model_key=version_key("1.0")).latest()

        assert model == bucket.store.find("1.0")
        assert bucket.store.card(model) == card_for(b"one")

    def test_a_key_in_a_version_folder_cannot_be_promoted_to(self, bucket: S3Shelf) -> None:
        bucket.publish("1.0", b"one")
        bucket.publish("2.0", b"two")

        with pytest.raises(VersionExists):
            open_anew(bucket, model_key=version_key("1.0")).promote("2.0")

    def test_lists_more_versions_than_one_answer_holds(self, bucket: S3Shelf, proxy: FaultyProxy, far: Far) -> None:
        names = [f"1.{number}" for number in range(25)]
        for name in names:
            bucket.put(version_key(name), b"model")
        proxy.asked_in_addition = "&max-keys=10"

        found = far(bucket).versions()

        assert sorted(str(model.version) for model in found) == sorted(names)
        assert len([request for request in proxy.requests if "list-type" in request.path]) == 3


class TestPinning:
    def test_the_old_bytes_arrive_whole_though_replaced_halfway(
        self, bucket: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path
    ) -> None:
        bucket.put(MODEL_KEY, CONTENT)
        model = bucket.store.latest()
        replacement = faults.meanwhile(lambda: bucket.put(MODEL_KEY, b"x" * len(CONTENT)), after=40_000)
        proxy.break_answers(faults.once(replacement))

        download(far(bucket), model, destination)

        assert destination.read_bytes() == CONTENT
        assert bucket.store.latest() != model

    def test_without_versioning_what_was_replaced_halfway_is_an_error(
        self, plain_bucket: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path
    ) -> None:
        plain_bucket.put(MODEL_KEY, CONTENT)
        model = plain_bucket.store.latest()
        replacement = faults.meanwhile(lambda: plain_bucket.put(MODEL_KEY, b"x" * len(CONTENT)), after=40_000)
        proxy.break_answers(faults.once(replacement))

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(far(plain_bucket), model, destination)

        assert caught.value.reason == "replaced"
        assert not destination.exists()

    @pytest.mark.parametrize(
        "fault",
        [faults.header("ETag", '"another"'), faults.header("Content-Length", "10")],
        ids=["another object", "another size"],
    )
    def test_a_server_that_does_not_heed_conditions_is_not_believed(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path, fault: Fault
    ) -> None:
        proxy.break_answers(fault, to=("GET",))

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(far(stocked), stocked.store.latest(), destination)

        assert caught.value.reason == "replaced"

    def test_a_server_that_does_not_know_ranges_is_not_believed(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path
    ) -> None:
        proxy.break_answers(faults.once(faults.cut(after=40_000)))
        proxy.dropped_header = "Range"

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(far(stocked), stocked.store.latest(), destination)

        assert caught.value.reason == "replaced"

    def test_bytes_that_changed_on_the_way_are_refused(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path
    ) -> None:
        proxy.break_answers(faults.corrupt, to=("GET",))

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(far(stocked), stocked.store.latest(), destination)

        assert caught.value.reason == "corrupted"
        assert not destination.exists()


class TestBadDays:
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (faults.status(500, "InternalError"), "server_error"),
            (faults.status(503, "SlowDown"), "server_error"),
            (faults.status(403, "AccessDenied"), "forbidden"),
            (faults.status(400, "ExpiredToken"), "forbidden"),
            (faults.status(404, "NoSuchBucket"), "missing_bucket"),
            (faults.status(418), "bad_answer"),
            (faults.reset, "unreachable"),
            (faults.garbage, "unreachable"),
        ],
        ids=["500", "503", "403", "expired token", "missing bucket", "418", "reset", "not HTTP"],
    )
    @pytest.mark.parametrize("question", ["download", "card", "versions"])
    def test_names_what_went_wrong(
        self,
        stocked: S3Shelf,
        proxy: FaultyProxy,
        far: Far,
        destination: Path,
        question: str,
        fault: Fault,
        reason: str,
    ) -> None:
        model, store = stocked.store.latest(), far(stocked)
        ask = {
            "download": lambda: download(store, model, destination),
            "card": lambda: store.card(model),
            "versions": lambda: store.versions(),
        }
        proxy.break_answers(fault)

        with pytest.raises(ModelStoreUnavailable) as caught:
            ask[question]()

        assert caught.value.reason == reason
        assert not destination.exists()

    def test_a_download_is_not_the_login_page_of_a_network(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path
    ) -> None:
        proxy.break_answers(faults.not_xml)

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(far(stocked), stocked.store.latest(), destination)

        assert caught.value.reason == "bad_answer"

    @pytest.mark.parametrize("after", [0, 20], ids=["at once", "in the middle"])
    def test_a_card_that_is_cut_is_no_card(self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, after: int) -> None:
        proxy.break_answers(faults.cut(after))

        with pytest.raises(ModelStoreUnavailable) as caught:
            far(stocked).card(stocked.store.latest())

        assert caught.value.reason == "truncated"

    @pytest.mark.parametrize("after", [0, 20], ids=["at once", "in the middle"])
    def test_a_list_that_is_cut_is_no_list(self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, after: int) -> None:
        proxy.break_answers(faults.cut(after))

        with pytest.raises(ModelStoreUnavailable):
            far(stocked).versions()

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (faults.status(500), "server_error"),
            (faults.status(503), "server_error"),
            (faults.status(403), "forbidden"),
            (faults.status(400), "bad_answer"),
            (faults.reset, "unreachable"),
            (faults.garbage, "unreachable"),
            (faults.not_xml, "bad_answer"),
        ],
        ids=["500", "503", "403", "400", "reset", "not HTTP", "not S3"],
    )
    def test_names_what_went_wrong_with_a_look(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, fault: Fault, reason: str
    ) -> None:
        proxy.break_answers(fault)

        with pytest.raises(ModelStoreUnavailable) as caught:
            far(stocked).latest()

        assert caught.value.reason == reason
        assert proxy.url.removeprefix("http://") not in caught.value.detail

    @pytest.mark.parametrize("share", range(20))
    def test_a_download_cut_at_any_point_leaves_nothing(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path, share: int
    ) -> None:
        proxy.break_answers(faults.cut_at(len(CONTENT) * share // 20), to=("GET",))

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(far(stocked), stocked.store.latest(), destination)

        assert caught.value.reason == "truncated"
        assert not destination.exists()

    def test_a_download_that_is_cut_goes_on_where_it_was(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path
    ) -> None:
        proxy.break_answers(faults.once(faults.cut(after=70_000)))

        download(far(stocked), stocked.store.latest(), destination)

        assert destination.read_bytes() == CONTENT
        assert ["Range" in request.headers for request in proxy.requests] == [False, True]

    def test_asks_again_when_the_server_had_only_a_moment_of_weakness(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far
    ) -> None:
        proxy.break_answers(faults.once(faults.status(500)))

        model = far(stocked, Patience()).latest()

        assert model.version == "1.0"

    @pytest.mark.parametrize(
        "fault",
        [faults.silence, faults.trickle(1000), faults.trickle_headers(1000)],
        ids=["silence", "1 KB/s", "headers at 1 KB/s"],
    )
    def test_a_download_is_given_up_at_its_deadline(
        self, stocked: S3Shelf, proxy: FaultyProxy, far: Far, destination: Path, fault: Fault
    ) -> None:
        model, store = stocked.store.latest(), far(stocked)
        proxy.break_answers(fault, to=("GET",))
        started = time.monotonic()

        with pytest.raises(ModelStoreUnavailable) as caught:
            download(store, model, destination, seconds=0.5)

        assert caught.value.reason == "timeout"
        assert time.monotonic() - started < 3
        assert not destination.exists()

    @pytest.mark.parametrize(
        "question",
        [lambda store, _: store.latest(), lambda store, _: store.versions(), lambda store, model: store.card(model)],
        ids=["latest", "versions", "card"],
    )
    @pytest.mark.parametrize("fault", [faults.silence, faults.trickle_headers(1000)], ids=["silence", "1 KB/s"])
    def test_no_question_waits_for_ever(
        self,
        stocked: S3Shelf,
        proxy: FaultyProxy,
        far: Far,
        fault: Fault,
        question: Callable[[S3Store, StoredModel], object],
    ) -> None:
        proxy.break_answers(fault)
        started = time.monotonic()

        with pytest.raises(ModelStoreUnavailable) as caught:
            question(far(stocked, IMPATIENT), stocked.store.latest())

        assert caught.value.reason == "timeout"
        assert time.monotonic() - started < 3

    def test_a_connection_that_is_never_accepted_times_out(
        self, bucket: S3Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with endpoint_that_never_accepts() as url:
            use_aws_environment(monkeypatch, url)

            with pytest.raises(ModelStoreUnavailable) as caught:
                S3Store(bucket.bucket, model_key=MODEL_KEY, patience=IMPATIENT).latest()

        assert caught.value.reason == "timeout"

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:1", "http://no-such-host.invalid"], ids=["nobody listens", "no such host"]
    )
    def test_an_endpoint_that_is_not_there_is_unreachable(
        self, bucket: S3Shelf, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        use_aws_environment(monkeypatch, url)

        with pytest.raises(ModelStoreUnavailable) as caught:
            open_anew(bucket).latest()

        assert caught.value.reason == "unreachable"

    def test_is_well_again_after_an_outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with running_s3() as server:
            use_aws_environment(monkeypatch, server.url)
            shelf = S3Shelf(server, server.create_bucket("wines-in-an-outage"))
            shelf.publish("1.0", CONTENT)
            before = shelf.store.latest()

            server.stop()
            with pytest.raises(ModelStoreUnavailable) as caught:
                open_anew(shelf).latest()
            server.start()

            assert caught.value.reason == "unreachable"
            assert shelf.store.latest() == before


class TestSettings:
    def test_missing_credentials_are_named(self, bucket: S3Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        with pytest.raises(ModelStoreUnavailable) as caught:
            open_anew(bucket).latest()

        assert caught.value.reason == "no_credentials"

    def test_a_missing_token_of_the_pod_is_a_matter_of_credentials(
        self, bucket: S3Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/wine")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token")

        with pytest.raises(ModelStoreUnavailable) as caught:
            open_anew(bucket).latest()

        assert caught.value.reason == "no_credentials"
        assert "/nonexistent" not in caught.value.detail

    @pytest.mark.parametrize(
        ("variable", "value"),
        [("AWS_PROFILE", "nobody"), ("AWS_ENDPOINT_URL_S3", "not a url")],
        ids=["unknown profile", "bad endpoint"],
    )
    def test_settings_that_make_no_sense_are_named(
        self, bucket: S3Shelf, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(variable, value)

        with pytest.raises(ModelStoreUnavailable) as caught:
            open_anew(bucket).latest()

        assert caught.value.reason == "misconfigured"

    def test_a_name_that_no_bucket_can_have_is_named(self, bucket: S3Shelf) -> None:
        with pytest.raises(ModelStoreUnavailable) as caught:
            S3Store("not a bucket", model_key=MODEL_KEY).latest()

        assert caught.value.reason == "misconfigured"

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_asks_by_path_where_the_endpoint_is_our_own(
        self, stocked: S3Shelf, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        use_aws_environment(monkeypatch, proxy.url.replace("127.0.0.1", host))

        open_anew(stocked).latest()

        assert proxy.requests[-1].path == f"/{stocked.bucket}/{MODEL_KEY}"

    def test_says_who_it_is(self, stocked: S3Shelf, proxy: FaultyProxy) -> None:
        open_anew(stocked).latest()

        assert "wine-api/" in proxy.requests[-1].headers["User-Agent"]

    def test_signs_for_the_region_that_it_is_given(self, stocked: S3Shelf, proxy: FaultyProxy) -> None:
        open_anew(stocked, region="eu-central-1").latest()

        assert "/eu-central-1/s3/" in proxy.requests[-1].headers["Authorization"]


class TestProcesses:
    def test_a_look_is_one_request(self, stocked: S3Shelf, proxy: FaultyProxy, far: Far) -> None:
        far(stocked).latest()

        assert [request.method for request in proxy.requests] == ["HEAD"]

    def test_many_threads_can_be_the_first_to_ask(self, stocked: S3Shelf, far: Far) -> None:
        store = far(stocked)

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: store.latest(), range(16)))

        assert set(found) == {stocked.store.latest()}

    def test_a_forked_process_has_connections_of_its_own(self, stocked: S3Shelf, proxy: FaultyProxy) -> None:
        parent_and_child = subprocess.run(
            [sys.executable, "-c", FORKING, stocked.bucket, MODEL_KEY], timeout=30, check=False
        )

        assert parent_and_child.returncode == 0
        assert len(proxy.requests) == 21
        assert len({request.client_port for request in proxy.requests}) == 2


FORKING = """
import os, sys
from wine_api.serving.stores.s3 import S3Store

store = S3Store(sys.argv[1], model_key=sys.argv[2])
first = store.latest()
child = os.fork()
same = all(store.latest() == first for _ in range(10))
if child == 0:
    os._exit(0 if same else 1)
sys.exit(os.waitpid(child, 0)[1] or not same)
"""


class TestPublishing:
    def test_of_two_publishers_at_once_one_is_refused(
        self, bucket: S3Shelf, proxy: FaultyProxy, far: Far, artifact: Path
    ) -> None:
        other = faults.and_then(lambda: bucket.put(version_key("1.0"), b"of another publisher"))
        proxy.break_answers(faults.only(ARTIFACT_NAME, faults.once(other)), to=("HEAD",))

        with pytest.raises(VersionExists):
            far(bucket).put_version("1.0", artifact, b"card", None)

        assert bucket.store.find("1.0").size == len(b"of another publisher")

    @pytest.mark.parametrize("name", [CARD_NAME, f"{CARD_NAME}.sig"])
    def test_a_publish_that_broke_off_changes_nothing_and_can_be_repeated(
        self, bucket: S3Shelf, proxy: FaultyProxy, far: Far, artifact: Path, name: str
    ) -> None:
        bucket.publish("1.0", CONTENT)
        served, store = bucket.store.latest(), far(bucket)
        proxy.break_answers(faults.only(name, faults.status(500, "InternalError")), to=("PUT",))

        with pytest.raises(ModelStoreUnavailable):
            store.put_version("2.0", artifact, b"card", b"signature")
        proxy.heal()
        store.put_version("2.0", artifact, b"card", b"signature")

        assert bucket.store.latest() == served
        assert bucket.store.card(bucket.store.find("2.0")) == b"card"
        assert bucket.store.signature(bucket.store.find("2.0")) == b"signature"

    def test_an_upload_whose_answer_got_lost_is_not_taken_for_that_of_another(
        self, bucket: S3Shelf, proxy: FaultyProxy, far: Far, artifact: Path
    ) -> None:
        proxy.break_answers(faults.once(faults.status(500, "InternalError")), to=("PUT",))

        far(bucket, Patience()).put_version("1.0", artifact, b"card", None)

        assert bucket.store.card(bucket.store.find("1.0")) == b"card"

    def test_the_artifact_is_written_last(self, bucket: S3Shelf, proxy: FaultyProxy, far: Far, artifact: Path) -> None:
        far(bucket).put_version("1.0", artifact, b"card", b"signature")

        written = [request.path.rpartition("/")[2] for request in proxy.requests if request.method == "PUT"]
        assert written == [f"{CARD_NAME}.sig", CARD_NAME, ARTIFACT_NAME]

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Path:
        path = tmp_path / "artifact.joblib"
        path.write_bytes(CONTENT)
        return path


@contextmanager
def endpoint_that_never_accepts() -> Iterator[str]:
    """Listen with a full queue, so that the kernel leaves further connections unanswered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(3)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in waiting:
            connection.close()
