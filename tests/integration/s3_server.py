"""A real S3 endpoint on the loopback interface (moto's server), for every test that needs a bucket.

with running_s3() as s3:
    s3.create_bucket("wines")
    s3.put("wines", "models/latest/wine_quality_model.joblib", artifact)
    s3.stop()   # an outage: connections are refused
    s3.start()  # … and the end of it, at the same address, with everything still there
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "wine-tests", "AWS_SECRET_ACCESS_KEY": "wine-tests-secret"}


class S3Server:
    """An S3 endpoint that can be stopped and started again. All servers of one process share their buckets."""

    def __init__(self) -> None:
        self._port = 0
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._client: S3Client | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self._port, application, threaded=True, request_handler=_QuietHandler)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def client(self) -> S3Client:
        """Return a client of the tests' own; always the same one, as building it takes a tenth of a second."""
        if self._client is None:
            self._client = self._new_client()
        return self._client

    def _new_client(self) -> S3Client:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def create_bucket(self, name: str, *, versioning: bool = True) -> str:
        client = self.client()
        client.create_bucket(Bucket=name)
        if versioning:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def empty_bucket(self, name: str) -> None:
        """Delete every object in every version."""
        found = self.client().list_object_versions(Bucket=name)
        objects = [
            {"Key": version["Key"], "VersionId": version["VersionId"]}
            for version in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]
        ]
        if objects:
            self.client().delete_objects(Bucket=name, Delete={"Objects": objects})

    def put(self, bucket: str, key: str, content: bytes, metadata: Mapping[str, str] | None = None) -> str | None:
        """Upload an object and return its VersionId, or None in a bucket without versioning."""
        answer = self.client().put_object(Bucket=bucket, Key=key, Body=content, Metadata=dict(metadata or {}))
        return answer.get("VersionId")

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment to find this endpoint and nothing else of AWS."""
        return aws_environment(self.url)


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Run an S3 endpoint on a free port."""
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def aws_environment(endpoint: str) -> dict[str, str]:
    """Return what points the AWS libraries to *endpoint* and away from this machine's own setup."""
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def use_aws_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Make *endpoint* the only S3 that this process knows."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in aws_environment(endpoint).items():
        monkeypatch.setenv(name, value)


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Keep the server's access log out of the tests' output."""
