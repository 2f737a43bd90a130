"""The S3 store: models in a bucket, or in anything that speaks S3's protocol."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from wine_api import __version__
from wine_api.errors import ModelVersionNotFound, WineError
from wine_api.serving.artifact import sha256_of
from wine_api.serving.stores.base import (
    CARD_NAME,
    SIGNATURE_NAME,
    VERSIONS_PREFIX,
    StoredModel,
    VersionExists,
    is_version_name,
    newest_first,
    require_version_name,
    version_key,
    version_of,
)
from wine_api.serving.stores.s3_errors import BROKEN_OFF, missing_bucket, our_words, status_of, truncated
from wine_api.serving.stores.transfer import copy, disk_errors, join_companion, new_file, refuse_larger, replaced

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CopySourceTypeDef,
        GetObjectRequestTypeDef,
        HeadObjectOutputTypeDef,
        HeadObjectRequestTypeDef,
    )

VERSION_METADATA = "model-version"
DIGEST_METADATA = "sha256"
DEFAULT_REGION = "us-east-1"
CHUNK_BYTES = 16 * 1024  # a peer of 1 KB/s is left alone at most 16 s after the deadline
RESUMES = 3
CONNECTIONS = 8

_VERSION_ID = re.compile(r"[A-Za-z0-9._~+=-]{1,1024}")
_NO_VERSION_ID = "null"  # what S3 calls the objects of a bucket without versioning

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long S3 is waited for, in seconds.

    *connect* and *read* bound one silence, *call* one whole question with its *attempts*. Downloads have a deadline
    of their own.
    """

    connect: float = 2.0
    read: float = 5.0
    attempts: int = 2
    call: float = 10.0


DEFAULT_PATIENCE = Patience()


class S3Store:
    """Models in a bucket.

    The client is built on first use in each process: a connection that two processes share mixes their answers up.
    *region* is only a hint; without any, S3 itself says where the bucket is. The role needs `s3:GetObject`,
    `s3:GetObjectVersion` and `s3:ListBucket`: without the last, S3 answers 403 for what does not exist.
    """

    kind = "s3"

    def __init__(
        self,
        bucket: str,
        *,
        model_key: str,
        profile: str | None = None,
        region: str | None = None,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self._bucket = bucket
        self._model_key = model_key
        self._profile = profile
        self._region = region
        self._patience = patience
        self._clients: dict[int, S3Client] = {}
        self._locks: dict[int, threading.Lock] = {}

    def location(self, model: StoredModel) -> dict[str, str | None]:
        """Say where *model* is."""
        return {"kind": self.kind, "bucket": self._bucket, "key": model.key, "version_id": model.version_id}

    def latest(self) -> StoredModel:
        """Look at the artifact under `MODEL_KEY` with one HEAD request."""
        return self._ask(self._latest)

    def find(self, version: str) -> StoredModel:
        """Look up *version* (see `ModelStore.find`)."""
        return self._ask(lambda: self._find(version))

    def versions(self) -> list[StoredModel]:
        """List the published versions, newest first: one request a thousand versions, and a HEAD for each."""
        return self._ask(self._versions)

    def download(self, model: StoredModel, destination: Path, *, max_bytes: int, deadline: float) -> None:
        """Write the bytes of exactly *model* to *destination* (see `ModelStore.download`)."""
        refuse_larger(model, max_bytes)
        with new_file(destination) as file:
            self._ask(lambda: copy(self._chunks(model), file, size=model.size, deadline=deadline), deadline=deadline)

    def card(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the model's card, or None where it has none."""
        return self._ask(lambda: self._companion(model, CARD_NAME))

    def signature(self, model: StoredModel) -> bytes | None:
        """Return the bytes of the card's signature, or None where it has none."""
        return self._ask(lambda: self._companion(model, SIGNATURE_NAME))

    def put_version(
        self,
        version: str,
        artifact: Path,
        card: bytes | None,
        signature: bytes | None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Publish *version*; the artifact comes last, as it makes the version (see `PublishingStore.put_version`).

        A publish that broke off before can be repeated, and nobody sees anything of it.
        """
        require_version_name(version)
        with our_words(self._bucket):
            if self._head(version_key(version)) is not None or (card is None and self._has_card(version)):
                raise _exists(version)
            with disk_errors():
                digest = sha256_of(artifact)
                body = _Watched(artifact, progress)
            with body:
                if signature is not None:
                    self._put_small_once(version, SIGNATURE_NAME, signature)
                if card is not None:
                    self._put_small_once(version, CARD_NAME, card)
                self._put_once(version, version_key(version), body, digest)

    def promote(self, version: str) -> StoredModel:
        """Copy the artifact of *version* onto `MODEL_KEY`, inside S3 and in one step."""
        with our_words(self._bucket):
            source = self._peek(version_key(version)) if is_version_name(version) else None
            if source is None:
                raise self._absent("The store has no such model version.")
            if version_of(self._model_key) is not None:
                raise VersionExists("MODEL_KEY is itself a published version, and versions never change.")
            place: CopySourceTypeDef = {"Bucket": self._bucket, "Key": source.key}
            if source.version_id is not None:
                place["VersionId"] = source.version_id
            self._s3.copy_object(
                Bucket=self._bucket,
                Key=self._model_key,
                CopySource=place,
                CopySourceIfMatch=source.etag,
                Metadata={VERSION_METADATA: version},
                MetadataDirective="REPLACE",
            )
            return self._latest()

    @property
    def _s3(self) -> S3Client:
        """The client of this process."""
        process = os.getpid()
        # One lock a process too: one that another thread held during a fork stays locked in the child for ever.
        with self._locks.setdefault(process, threading.Lock()):
            if process not in self._clients:
                self._clients[process] = self._new_client()
            return self._clients[process]

    def _new_client(self) -> S3Client:
        core = botocore.session.Session(profile=self._profile)
        # For every client of the session, as credentials may have to be fetched first (from STS, with IRSA).
        core.set_default_client_config(
            Config(
                connect_timeout=self._patience.connect,
                read_timeout=self._patience.read,
                retries={"mode": "standard", "total_max_attempts": self._patience.attempts},
                max_pool_connections=CONNECTIONS,
                tcp_keepalive=True,
                user_agent_extra=f"wine-api/{__version__}",
            )
        )
        session = boto3.session.Session(botocore_session=core, region_name=self._region)
        return session.client("s3", region_name=session.region_name or DEFAULT_REGION)

    def _ask(self, question: Callable[[], T], *, deadline: float | None = None) -> T:
        """Return the answer to *question*, or raise one of our errors by *deadline*."""
        with our_words(self._bucket):
            return _answer_until(time.monotonic() + self._patience.call if deadline is None else deadline, question)

    def _latest(self) -> StoredModel:
        model = self._peek(self._model_key)
        if model is None:
            raise self._absent(f"The bucket {self._bucket} has nothing under {self._model_key}.")
        return model

    def _find(self, version: str) -> StoredModel:
        if is_version_name(version) and (model := self._peek(version_key(version))):
            return model
        if (model := self._peek(self._model_key)) and model.version == version:
            return model
        if _is_version_id(version) and (model := self._peek(self._model_key, version)):
            return model
        raise self._absent("The store has no such model version.")

    def _versions(self) -> list[StoredModel]:
        names = [name for name in self._folder_names() if is_version_name(name)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            models = pool.map(self._peek, map(version_key, names))
            return newest_first(model for model in models if model is not None)

    def _folder_names(self) -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=VERSIONS_PREFIX, Delimiter="/"):
            if "Name" not in page:  # an answer that broke off before its first byte is an empty list to botocore
                raise truncated()
            for folder in page.get("CommonPrefixes", []):
                yield folder["Prefix"].removeprefix(VERSIONS_PREFIX).removesuffix("/")

    def _companion(self, model: StoredModel, name: str) -> bytes | None:
        if model.published_as is None:
            return None
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=version_key(model.published_as, name))
        except self._s3.exceptions.NoSuchKey:
            return None
        with closing(answer["Body"]) as body:
            return join_companion(body.iter_chunks(CHUNK_BYTES), name)

    def _chunks(self, model: StoredModel) -> Iterator[bytes]:
        """Yield the bytes of *model*; where a connection breaks off, the next one goes on."""
        received = 0
        for resumes_left in reversed(range(RESUMES + 1)):
            try:
                answer = self._s3.get_object(**self._request_for(model, received))
                with closing(answer["Body"]) as body:
                    # Not every server that speaks S3 heeds If-Match and Range.
                    if answer["ETag"] != model.etag or received + answer["ContentLength"] != model.size:
                        raise replaced()
                    for chunk in body.iter_chunks(CHUNK_BYTES):
                        received += len(chunk)
                        yield chunk
                return
            except BROKEN_OFF:
                if not resumes_left:
                    raise

    def _request_for(self, model: StoredModel, start: int) -> GetObjectRequestTypeDef:
        request: GetObjectRequestTypeDef = {"Bucket": self._bucket, "Key": model.key, "IfMatch": model.etag}
        if model.version_id is not None:
            request["VersionId"] = model.version_id
        if start:
            request["Range"] = f"bytes={start}-"
        return request

    def _peek(self, key: str, version_id: str | None = None) -> StoredModel | None:
        """Look at the artifact under *key*; None if there is none."""
        head = self._head(key, version_id)
        if head is None:
            return None
        shown_id = head.get("VersionId", _NO_VERSION_ID)
        pinned = None if shown_id == _NO_VERSION_ID else shown_id
        name = head["Metadata"].get(VERSION_METADATA, "")
        return StoredModel(
            key=key,
            version=version_of(key) or (name if is_version_name(name) else pinned),
            etag=head["ETag"],
            version_id=pinned,
            size=head["ContentLength"],
            modified_at=head["LastModified"].astimezone(UTC),
        )

    def _head(self, key: str, version_id: str | None = None) -> HeadObjectOutputTypeDef | None:
        request: HeadObjectRequestTypeDef = {"Bucket": self._bucket, "Key": key}
        if version_id is not None:
            request["VersionId"] = version_id
        try:
            return self._s3.head_object(**request)
        except ClientError as error:
            # 405 is the answer for a deleted version, 400 for what is no version id.
            if status_of(error) == 404 or (version_id is not None and status_of(error) in (400, 405)):
                return None
            raise

    def _absent(self, detail: str) -> WineError:
        """Return the error for a HEAD that was answered 404, which S3 also does when the bucket is missing."""
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if status_of(error) == 404:
                return missing_bucket(self._bucket)
        return ModelVersionNotFound(detail)

    def _has_card(self, version: str) -> bool:
        return self._head(version_key(version, CARD_NAME)) is not None

    def _put_small_once(self, version: str, name: str, content: bytes) -> None:
        self._put_once(version, version_key(version, name), io.BytesIO(content), hashlib.sha256(content).hexdigest())

    def _put_once(self, version: str, key: str, body: BinaryIO, digest: str) -> None:
        """Write *body* unless *key* is taken; taken by the same bytes is as good as written."""
        # Asked first, too: some servers do not know If-None-Match, and a large upload would be refused only at its end.
        if self._is_taken(version, key, digest):
            return
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                IfNoneMatch="*",
                Metadata={VERSION_METADATA: version, DIGEST_METADATA: digest},
            )
        except ClientError as error:
            if status_of(error) not in (409, 412) or not self._is_taken(version, key, digest):
                raise

    def _is_taken(self, version: str, key: str, digest: str) -> bool:
        head = self._head(key)
        if head is not None and head["Metadata"].get(DIGEST_METADATA) != digest:
            raise _exists(version)
        return head is not None


class _Watched(io.BufferedReader):
    """A file that reports how far it was read; reading it again, for a checksum or a retry, does not count twice."""

    def __init__(self, path: Path, progress: Callable[[int], None] | None) -> None:
        super().__init__(io.FileIO(path))
        self._progress = progress
        self._reported = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file."""
        chunk = super().read(size)
        news = self.tell() - self._reported
        if self._progress is not None and news > 0:
            self._reported += news
            self._progress(news)
        return chunk


def _is_version_id(text: str) -> bool:
    return text != _NO_VERSION_ID and _VERSION_ID.fullmatch(text) is not None


def _exists(version: str) -> VersionExists:
    return VersionExists(f"The version {version} exists already, and versions never change.")


def _answer_until(deadline: float, question: Callable[[], T]) -> T:
    """Return the answer to *question*, or raise `TimeoutError` at *deadline*.

    The timeout of a socket bounds one silence. A peer that trickles, or a name server that never answers, outlasts it,
    and is left behind on a thread of its own.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="s3", daemon=True).start()
    return answer.result(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
