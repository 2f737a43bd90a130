"""Errors: each has a status and a stable code of its own, and says nothing of the machine."""

from __future__ import annotations

import pickle
import re

import pytest

from wine_api import errors
from wine_api.errors import Fault, InvalidRequest, ModelRejected, ModelStoreUnavailable, WineError, WorkersNotConverged

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WineError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_a_code_and_a_title(kind):
    assert 400 <= kind.status < 600
    assert re.fullmatch("[a-z]+(_[a-z]+)*", kind.code)
    assert kind.title[0].isupper()


def test_no_two_errors_share_a_code():
    codes = [kind.code for kind in KINDS]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("MalformedBody", 400, "malformed_body"),
        ("InvalidJSON", 400, "invalid_json"),
        ("ModelVersionNotFound", 404, "model_version_not_found"),
        ("BodyTooLarge", 413, "body_too_large"),
        ("BatchTooLarge", 413, "batch_too_large"),
        ("UnsupportedMediaType", 415, "unsupported_media_type"),
        ("InvalidRequest", 422, "validation_failed"),
        ("ModelRejected", 422, "model_rejected"),
        ("ModelStoreUnavailable", 502, "model_store_unavailable"),
        ("ModelNotLoaded", 503, "model_not_loaded"),
        ("WorkersNotConverged", 504, "workers_not_converged"),
    ],
)
def test_the_codes_are_a_contract(name, status, code):
    kind = getattr(errors, name)

    assert (kind.status, kind.code) == (status, code)


def test_the_detail_is_what_an_error_says():
    error = WineError("No cork.", retry_after=3, members={"cork": None})

    assert str(error) == error.detail == "No cork."
    assert error.retry_after == 3
    assert error.members == {"cork": None}


def test_members_of_one_error_are_not_those_of_the_next():
    WineError("first").members["changed"] = True

    assert WineError("second").members == {}


def test_an_invalid_request_keeps_its_faults():
    fault = Fault("/features/3", "not_a_number", "Must be a number.")

    assert InvalidRequest("1 problem", [fault]).faults == (fault,)


def test_a_rejected_model_names_gate_and_reason():
    error = ModelRejected("size", "too_large", "The file is too large.")

    assert error.members == {"gate": "size", "reason": "too_large"}


def test_a_rejected_model_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ModelRejected("size", "too_large", "The file is too large.")))

    assert (error.gate, error.reason, error.detail) == ("size", "too_large", "The file is too large.")


def test_an_unavailable_store_names_the_reason():
    assert ModelStoreUnavailable("timeout", "Too slow.").members == {"reason": "timeout"}


def test_workers_that_did_not_converge_can_be_named():
    assert WorkersNotConverged("1 of 2", members={"workers": [1]}).members == {"workers": [1]}
