"""Plain requests take a short way, others go through Flask: nobody can tell from the answer."""

from __future__ import annotations

import json

import pytest

from tests.models import WINE, WINE_BY_NAME

# A query that asks for nothing: with one, a request goes through Flask.
LONG_WAY = "?nothing=asked"
OF_THE_MOMENT = ("request_id", "processing_time_ms")
BAD = [value if place != 3 else -1.0 for place, value in enumerate(WINE)]
FAR_OUT = [99.0 if place == 10 else value for place, value in enumerate(WINE)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"features": WINE}),
        ("/predict", {"wine_features": WINE_BY_NAME}),
        ("/predict", {"features": FAR_OUT}),
        ("/predict", {"features": BAD}),
        ("/predict", {"features": WINE, "request_id": "mine"}),
        ("/predict", {}),
        ("/predict/batch", {"features_list": [WINE, FAR_OUT, WINE]}),
        ("/predict/batch", {"wine_features_list": [WINE_BY_NAME] * 3}),
        ("/predict/batch", {"features_list": [WINE, BAD]}),
        ("/predict/batch", {"features_list": []}),
    ],
    ids=[
        "wine by position",
        "wine by name",
        "wine out of range",
        "negative value",
        "unknown field",
        "nothing",
        "wines by position",
        "wines by name",
        "a bad wine among good ones",
        "no wines",
    ],
)
def test_both_ways_lead_to_the_same_answer(client, path, body):
    short, long = (ask(client, path + way, json.dumps(body)) for way in ("", LONG_WAY))

    assert told(short) == told(long)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [("{", "application/json"), ('{"features": [NaN]}', "application/json"), ("features=1", "text/plain"), ("", None)],
    ids=["broken", "NaN", "text", "nothing"],
)
def test_both_ways_refuse_the_same(client, body, content_type):
    short, long = (
        client.post(path, data=body, content_type=content_type) for path in ("/predict", f"/predict{LONG_WAY}")
    )

    assert told(short) == told(long)
    assert short.status_code in (400, 415)


def test_both_ways_say_that_there_is_no_model_yet(run, settings):
    client = run(settings).test_client()

    short, long = (ask(client, path, json.dumps({"features": WINE})) for path in ("/predict", f"/predict{LONG_WAY}"))

    assert told(short) == told(long)
    assert short.status_code == 503
    assert short.headers["Retry-After"]


def ask(client, path, body):
    return client.post(path, data=body, content_type="application/json")


def told(answer):
    """Return what an answer tells, without what is of the moment."""
    document = {key: value for key, value in answer.json.items() if key not in OF_THE_MOMENT}
    headers = {key: value for key, value in answer.headers if key not in ("X-Request-ID", "Content-Length", "Date")}
    return answer.status_code, document, headers
