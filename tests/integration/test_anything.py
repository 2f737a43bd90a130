"""Whatever the OpenAPI document allows, and much that it does not, is answered as the document says."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))  # for each operation; `make fuzz` asks more


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
QUIETLY = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[*HealthCheck])


@pytest.fixture
def operations(shared_app):
    document = schemathesis.openapi.from_wsgi("/openapi.json", shared_app)
    return [found.ok() for found in document.get_all_operations()]


# Not by its pytest plugin, which does not know pytest 9.2.
@pytest.mark.timeout(0)
# Hypothesis takes the jitter of the service's own threads, in this process, for its strategies calling `random`.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not allowed"])
def test_every_answer_is_one_of_the_document(operations, mode):
    for operation in operations:

        @QUIETLY
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # nothing is forbidden where there is no parameter and no body
            ask()
