"""docs/api.md: what it says is so."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from tests.contract import Contract
from wine_api import errors
from wine_api.errors import WineError
from wine_api.serving.wine import FEATURES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def tables():
    """Return the rows of all tables, each a tuple of its cells."""
    rows = re.findall(r"^\| (.*) \|$", PAGE, re.MULTILINE)
    return {tuple(cell.strip().strip("`") for cell in row.split(" | ")) for row in rows}


def codes_in(*sources, pattern):
    """Return what *pattern* finds in the *sources* of the package."""
    return {code for source in sources for code in re.findall(pattern, (ROOT / "wine_api" / source).read_text())}


def test_has_every_error_with_its_status_and_title():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WineError)]

    assert {(str(kind.status), kind.code, kind.title) for kind in kinds} <= tables()


def test_has_every_code_of_requests_that_reach_no_endpoint():
    codes = codes_in("api/error_handlers.py", pattern=r'\d{3}: \("(\w+)"') | {"http_error"}
    codes |= codes_in("worker.py", pattern=r'return \d{3}, "[^"]+", "(\w+)"')

    assert len(codes) >= 10
    assert codes <= {row[1] for row in tables() if len(row) == 3}


def test_has_every_code_of_what_is_wrong_with_a_request():
    schemas = [path.relative_to(ROOT / "wine_api") for path in (ROOT / "wine_api" / "schemas").glob("*.py")]
    codes = codes_in(*schemas, pattern=r'[Cc]omplai\w+\("(\w+)"')
    codes |= codes_in(*schemas, "api/predict.py", pattern=r'Fault\([^,]+, "(\w+)"')

    assert len(codes) >= 12
    assert codes <= {row[0] for row in tables() if len(row) == 2}


def test_has_no_code_that_there_is_not():
    everything = "".join(path.read_text() for path in (ROOT / "wine_api").rglob("*.py"))
    codes = re.findall(
        r"^\| (?:\d{3} \| |other \| )?`([a-z]+_[a-z_]+)` \|", PAGE.partition("# Errors")[2], re.MULTILINE
    )

    assert len(codes) >= 30
    assert [code for code in codes if f'"{code}"' not in everything] == []


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_has_every_measurement_in_its_place(feature):
    allowed = (
        f"{feature.minimum:g} or more" if feature.maximum is None else f"{feature.minimum:g} to {feature.maximum:g}"
    )
    row = (str(FEATURES.index(feature) + 1), feature.name, feature.unit, feature.description, allowed)

    assert row in tables()


def test_has_every_endpoint(client):
    for method, path in Contract.of(client).operations():
        assert re.search(rf"`({method} )?{re.escape(path)}`", PAGE), (method, path)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: shlex.split(command)[-1][:32])
def test_its_commands_work(client, command):
    words = shlex.split(command)
    options = dict(pairwise(words))
    url = next(word for word in words if word.startswith("http://127.0.0.1:8000/"))
    headers = [options["-H"].split(": ")] if "-H" in options else []

    response = client.open(
        url, method=options.get("-X", "POST" if "-d" in options else "GET"), data=options.get("-d"), headers=headers
    )

    assert response.status_code == 200
    Contract.of(client).check(response)


def test_its_examples_of_answers_are_as_promised(client):
    contract = Contract.of(client)
    single, batch, problem = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))

    assert contract.allows("PredictResponse", single)
    assert contract.allows("PredictBatchResponse", batch)
    assert contract.allows("Problem", problem)
