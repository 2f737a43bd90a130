"""Whatever the OpenAPI document allows, and much that it does not, is answered as the document says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import running_server
from wine_api.security.access import Scope
from wine_api.security.keys import create_key

# Each run asks the same; `make fuzz` asks more, and something else each time.
ASKED = os.environ.get("SCHEMATHESIS_EXAMPLES")
HOW_MUCH = ["--max-examples", ASKED] if ASKED else ["--max-examples", "30", "--generation-deterministic"]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("sent", ["no key", "a key", "no key where one is needed"])
def test_schemathesis_finds_no_answer_that_is_not_in_the_document(tmp_path, published_models, sent):
    key_file, settings = tmp_path / "keys.json", {"MODEL_DIR": str(published_models.path)}
    key = create_key(key_file, "tester", list(Scope), None)
    if sent != "no key":
        settings["API_KEYS_FILE"] = str(key_file)
    header = ["--header", f"X-API-Key: {key}"] if sent == "a key" else []

    with running_server(tmp_path, settings) as server:
        operations = len(server.get("/openapi.json").json["paths"]) - 1  # it does not ask for the document itself
        found = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json", "--no-color"),
                *("--checks", "all", "--continue-on-failure", *HOW_MUCH, *header),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]
    assert f"Tested: {operations}\n" in found.stdout
