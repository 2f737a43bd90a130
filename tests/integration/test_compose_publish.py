"""The step of compose.yaml that fills the bucket, against a real S3 endpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.s3_server import running_s3
from tests.server import ROOT

BUCKET = "wine-models-of-compose"
LATEST = "models/latest/wine_quality_model.joblib"


@pytest.fixture
def s3():
    with running_s3() as s3:
        yield s3


def publish(s3):
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "S3_BUCKET_NAME": BUCKET,
        "MODEL": str(ROOT / "wine_api/bundled/models/1.0.0"),
        **s3.environment(),
    }
    script = ROOT / "deploy/compose/publish.sh"
    return subprocess.run(["sh", script], env=environment, capture_output=True, text=True)


def test_an_empty_server_gets_the_bucket_and_the_bundled_model_and_a_full_one_keeps_what_it_has(s3):
    first = publish(s3)

    assert first.returncode == 0, first.stderr
    assert s3.client().head_object(Bucket=BUCKET, Key=LATEST)["Metadata"]["model-version"] == "1.0.0"

    s3.put(BUCKET, LATEST, b"another", {"model-version": "2.0.0"})
    second = publish(s3)

    assert second.returncode == 0, second.stderr
    assert "has a model already" in second.stdout
    assert s3.client().head_object(Bucket=BUCKET, Key=LATEST)["Metadata"]["model-version"] == "2.0.0"
