"""POST /predict: one wine in, one answer out, and nothing that is sent can break it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.problems import pointers, problem_of
from tests.models import WINE, WINE_BY_NAME
from wine_api.serving.wine import FEATURE_NAMES

WINE_TEXT = json.dumps(WINE)
HUGE = "9" * 5000


def send(client, body, path="/predict", **options):
    return client.post(path, data=body, content_type="application/json", **options)


def features_with(value: str, place: int = 3) -> str:
    """Write a request whose feature number *place* is the JSON text *value*."""
    numbers = [*map(str, WINE)]
    numbers[place] = value
    return f'{{"features": [{", ".join(numbers)}]}}'


# What is answered


@pytest.mark.parametrize(
    "body",
    [{"features": WINE}, {"features": WINE_BY_NAME}, {"wine_features": WINE_BY_NAME}],
    ids=["array", "object as features", "object as wine_features"],
)
def test_answers_like_scikit_learn(client, models, body):
    answer = client.post("/predict", json=body)

    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.json["prediction"] == models.fives_and_sixes.answer(WINE) == 5
    assert answer.json["confidence"] == models.fives_and_sixes.confidence(WINE)
    assert answer.json["model_version"] == "1.0"
    assert answer.json["features_processed"] == 11
    assert answer.json["processing_time_ms"] > 0


def test_says_no_more_than_it_was_asked_for(client):
    answer = client.post("/predict", json={"features": [*WINE_BY_NAME.values()]})

    assert {*answer.json} == {
        "prediction",
        "confidence",
        "model_version",
        "processing_time_ms",
        "features_processed",
        "warnings",  # the citric acid of this wine is below what the model saw
    }


def test_adds_the_probability_of_each_label_when_asked(client, models):
    answer = client.post("/predict?include=probabilities", json={"features": WINE})

    assert answer.json["probabilities"] == dict(
        zip(["5", "6"], models.fives_and_sixes.probabilities(WINE), strict=True)
    )
    assert math.isclose(sum(answer.json["probabilities"].values()), 1)


@pytest.mark.parametrize(
    "query", ["include=nonsense", "include=", "include=probabilities&include=nonsense"], ids=["word", "nothing", "both"]
)
def test_refuses_to_include_what_it_does_not_know(client, query):
    answer = client.post(f"/predict?{query}", json={"features": WINE})

    assert answer.status_code == 422
    assert problem_of(answer)["errors"][0]["code"] == "invalid_parameter"


def test_names_values_outside_the_training_range_and_scores_them_all_the_same(client):
    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, "citric_acid": 0.1, "alcohol": 99}})

    assert answer.status_code == 200
    assert [(warning["feature"], warning["value"]) for warning in answer.json["warnings"]] == [("alcohol", 99)]
    assert answer.json["warnings"][0]["low"] < 9.4 < answer.json["warnings"][0]["high"] < 99


def test_leaves_the_warnings_out_where_there_are_none(client):
    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, "citric_acid": 0.1}})

    assert "warnings" not in answer.json


@pytest.mark.parametrize(
    "spell",
    [
        str.upper,
        str.lower,
        str.title,
        lambda name: name.replace("_", " "),
        lambda name: name.replace("_", "."),
        lambda name: name.replace("_", ""),
        lambda name: name.replace("sulfur", "sulphur"),
        lambda name: "".join(word.capitalize() for word in name.split("_")),
    ],
    ids=["UPPER_CASE", "lower_case", "Title_Case", "spaces", "dots", "joined", "British", "CamelCase"],
)
def test_spellings_give_the_same_answer(client, spell):
    expected = client.post("/predict?include=probabilities", json={"features": WINE}).json["probabilities"]

    answer = client.post(
        "/predict?include=probabilities",
        json={"wine_features": {spell(name): value for name, value in WINE_BY_NAME.items()}},
    )

    assert answer.status_code == 200
    assert answer.json["probabilities"] == expected


def test_the_order_of_names_does_not_matter(client):
    expected = client.post("/predict?include=probabilities", json={"features": WINE}).json["probabilities"]

    answer = client.post("/predict?include=probabilities", json={"wine_features": dict(reversed(WINE_BY_NAME.items()))})

    assert answer.json["probabilities"] == expected


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'application/json; charset="UTF-8"', "Application/JSON"],
)
def test_takes_json_however_it_is_announced(client, content_type):
    answer = client.post("/predict", data=f'{{"features": {WINE_TEXT}}}', content_type=content_type)

    assert answer.status_code == 200


# Other kinds of models


@pytest.mark.parametrize(
    ("kind", "prediction", "names"),
    [("floats", "5", ["5", "6"]), ("words", '"poor"', ["poor", "superb"])],
    ids=["whole numbers as floats become integers", "words stay words"],
)
def test_labels_are_the_models_own(run, settings, folder, models, kind, prediction, names):
    folder.upload(getattr(models, kind).content)
    client = run(settings).test_client()

    answer = client.post("/predict?include=probabilities", json={"features": WINE})

    assert json.dumps(answer.json["prediction"]) == prediction
    assert [*answer.json["probabilities"]] == names


@pytest.mark.parametrize("kind", ["regressor", "without_probabilities"])
def test_a_model_without_probabilities_has_no_confidence(run, settings, folder, models, kind):
    folder.upload(getattr(models, kind).content)
    client = run(settings).test_client()

    answer = client.post("/predict?include=probabilities", json={"features": WINE})

    assert answer.status_code == 200
    assert answer.json["prediction"] == getattr(models, kind).answer(WINE)
    assert answer.json["confidence"] is None
    assert "probabilities" not in answer.json


def test_a_regressor_answers_with_a_float(run, settings, folder, models):
    folder.upload(models.regressor.content)
    client = run(settings).test_client()

    answer = client.post("/predict", json={"features": WINE})

    assert isinstance(answer.json["prediction"], float)
    assert math.isclose(answer.json["prediction"], 9.4 / 2, abs_tol=1e-6)


def test_a_plain_upload_is_named_by_its_digest_and_warns_of_nothing(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    client = run(settings).test_client()

    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, "alcohol": 99}})

    assert answer.json["model_version"] == models.fives_and_sixes.digest[:12]
    assert "warnings" not in answer.json


def test_says_when_to_try_again_before_there_is_a_model(run, settings):
    client = run(settings).test_client()

    answer = client.post("/predict", json={"features": WINE})

    assert answer.status_code == 503
    assert problem_of(answer)["code"] == "model_not_loaded"
    assert int(answer.headers["Retry-After"]) > 0


# What is refused


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "line 1"),
        (b" \n\t ", "line"),
        (f'{{"features": {WINE_TEXT}'.encode(), "line 1"),
        (f'{{"features": {WINE_TEXT}}} x'.encode(), "line 1"),
        (f'{{"features": {WINE_TEXT},}}'.encode(), "line 1"),
        (b"{'features': []}", "line 1"),
        (features_with("NaN").encode(), "NaN"),
        (features_with("Infinity").encode(), "Infinity"),
        (features_with("-Infinity").encode(), "-Infinity"),
        (features_with("0x10").encode(), "line 1"),
        (features_with("07").encode(), "line 1"),
        (features_with(HUGE).encode(), "digits"),
        (f'{{"features": {WINE_TEXT}, "features": {WINE_TEXT}}}'.encode(), "same key"),
        (b'{"wine_features": {"pH": 3, "pH": 4}}', "same key"),
        (b"[" * 1000 + b"]" * 1000, "nested"),
        (b'{"features": ' + b"[" * 1000 + b"]" * 1000 + b"}", "nested"),
        (b'{"features": ' * 1000 + b"1" + b"}" * 1000, "nested"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"\xef\xbb\xbf" + f'{{"features": {WINE_TEXT}}}'.encode(), "BOM"),
        (b'{"features": "\xff\xfe"}', "UTF-8"),
        (b'{"features": "\xed\xa0\x80"}', "UTF-8"),
        (f'{{"features": {WINE_TEXT}}}'.encode("utf-16"), "UTF-8"),
        (f'{{"features": {WINE_TEXT}}}'.encode("utf-16-le"), ""),
        (b'{"features": "\x00"}', "line 1"),
        (b"\x1f\x8b\x08\x00", "UTF-8"),
    ],
    ids=[
        "nothing",
        "white space",
        "truncated",
        "more after the end",
        "trailing comma",
        "single quotes",
        "NaN",
        "Infinity",
        "-Infinity",
        "hexadecimal",
        "leading zero",
        "whole number of 5000 digits",
        "duplicate key",
        "duplicate key in the wine",
        "1000 arrays deep",
        "1000 arrays deep in a field",
        "1000 objects deep",
        "100000 arrays deep, open",
        "100000 arrays deep",
        "100000 objects deep, open",
        "byte order mark",
        "invalid UTF-8",
        "a surrogate in UTF-8",
        "UTF-16 with mark",
        "UTF-16",
        "NUL in text",
        "gzip",
    ],
)
def test_refuses_what_is_not_strict_json(client, body, says):
    answer = send(client, body)

    assert answer.status_code == 400
    assert problem_of(answer)["code"] == "invalid_json"
    assert says in answer.json["detail"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1e400", "not_finite"),
        ("-1e400", "not_finite"),
        ("9" * 4000, "not_finite"),
        ("true", "not_a_number"),
        ("false", "not_a_number"),
        ('"7.4"', "not_a_number"),
        ('""', "not_a_number"),
        ("null", "not_a_number"),
        ("[7.4]", "not_a_number"),
        ('{"value": 7.4}', "not_a_number"),
        ("-0.1", "too_small"),
    ],
    ids=[
        "1e400",
        "-1e400",
        "4000 digits",
        "true",
        "false",
        "text",
        "empty text",
        "null",
        "array",
        "object",
        "negative",
    ],
)
@pytest.mark.parametrize("form", ["features", "wine_features"])
def test_refuses_values_that_are_no_measurement(client, text, code, form):
    pointer = {"features": "/features/3", "wine_features": "/wine_features/residual_sugar"}[form]
    by_name = {**WINE_BY_NAME, "residual_sugar": "?"}
    body = {"features": features_with(text), "wine_features": json.dumps({form: by_name}).replace('"?"', text)}[form]

    answer = send(client, body)

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == {pointer: code}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("pH", 14.01, "too_large"), ("alcohol", 100.5, "too_large"), ("pH", -1, "too_small")],
    ids=["pH above 14", "alcohol above 100", "negative pH"],
)
def test_refuses_values_that_nature_does_not_know(client, name, value, code):
    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, name: value}})

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == {f"/wine_features/{name}": code}


@pytest.mark.parametrize(("name", "value"), [("pH", 14), ("alcohol", 100), ("citric_acid", 0), ("density", -0.0)])
def test_takes_values_at_the_limits(client, name, value):
    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, name: value}})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"": "missing"}),
        ({"features": WINE, "wine_features": WINE_BY_NAME}, {"": "ambiguous"}),
        ({"features": WINE[:10]}, {"/features": "wrong_length"}),
        ({"features": [*WINE, 1.0]}, {"/features": "wrong_length"}),
        ({"features": []}, {"/features": "wrong_length"}),
        ({"features": [WINE]}, {"/features": "wrong_length"}),
        ({"features": "7.4"}, {"/features": "wrong_type"}),
        ({"features": None}, {"/features": "wrong_type"}),
        ({"features": 7.4}, {"/features": "wrong_type"}),
        ({"wine_features": None}, {"/wine_features": "wrong_type"}),
        ({"wine_features": WINE}, {"/wine_features": "wrong_type"}),
        ({"features": WINE, "colour": "red"}, {"/colour": "unknown_field"}),
        ({"features": WINE, "request_id": "1"}, {"/request_id": "unknown_field"}),
        ({"features_list": [WINE]}, {"/features_list": "unknown_field"}),
        ([], {"": "wrong_type"}),
        ([WINE], {"": "wrong_type"}),
        ("wine", {"": "wrong_type"}),
        (7.4, {"": "wrong_type"}),
        (None, {"": "wrong_type"}),
        (True, {"": "wrong_type"}),
    ],
    ids=[
        "neither form",
        "both forms",
        "10 features",
        "12 features",
        "no features",
        "a batch of one",
        "text as features",
        "null as features",
        "a number as features",
        "null as wine",
        "an array as wine",
        "unknown field",
        "request_id",
        "the field of the batch",
        "an array",
        "an array of wines",
        "text",
        "a number",
        "null",
        "a boolean",
    ],
)
def test_refuses_what_is_not_exactly_one_wine(client, body, faults):
    answer = send(client, json.dumps(body))

    assert answer.status_code == 422
    assert problem_of(answer)["code"] == "validation_failed"
    assert pointers(answer.json) == faults


def test_tells_callers_of_the_old_service_where_the_request_id_goes(client):
    answer = client.post("/predict", json={"features": WINE, "request_id": "1"})

    assert "X-Request-ID" in problem_of(answer)["errors"][0]["detail"]


def test_says_which_name_it_does_not_know_and_what_may_have_been_meant(client):
    wine = {("alcohool" if name == "alcohol" else name): value for name, value in WINE_BY_NAME.items()}

    answer = client.post("/predict", json={"wine_features": wine})

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == {
        "/wine_features/alcohool": "unknown_feature",
        "/wine_features/alcohol": "missing",
    }
    assert "did you mean alcohol?" in answer.text


def test_says_which_name_is_missing(client):
    wine = {name: value for name, value in WINE_BY_NAME.items() if name not in ("pH", "density")}

    answer = client.post("/predict", json={"wine_features": wine})

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == {"/wine_features/pH": "missing", "/wine_features/density": "missing"}


def test_says_which_name_came_twice(client):
    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, "PH": 3.0}})

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == {"/wine_features/PH": "duplicate_feature"}


def test_names_every_fault_of_a_wine_at_once(client):
    answer = client.post("/predict", json={"features": ["x", *WINE[1:10], -1]})

    assert pointers(problem_of(answer)) == {"/features/0": "not_a_number", "/features/10": "too_small"}


@pytest.mark.parametrize(
    ("key", "pointer"),
    [("a/b~c", "/wine_features/a~1b~0c"), ("_schema", "/wine_features/_schema"), ("", "/wine_features/")],
    ids=["slash and tilde", "marshmallow's own word", "nothing"],
)
def test_points_to_names_that_look_strange(client, key, pointer):
    answer = client.post("/predict", json={"wine_features": {**WINE_BY_NAME, key: 1}})

    assert answer.status_code == 422
    assert pointers(problem_of(answer)) == {pointer: "unknown_feature"}


@pytest.mark.parametrize(
    "body",
    [
        r'{"\ud800": 1}',
        r'{"features": {"\ud800": 1}}',
        r'{"wine_features": {"\udfff\ud800": 1}}',
        r'{"features": "\ud800"}',
        r'{"features": ["\ud800"]}',
    ],
    ids=["field", "name", "two in a name", "value", "value in an array"],
)
def test_lone_surrogates_are_the_callers_fault(client, body):
    answer = send(client, body)

    assert answer.status_code in (400, 422)
    assert problem_of(answer)["code"] in ("invalid_json", "validation_failed")


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        (None, {}),
        ("", {}),
        ("text/plain", {}),
        ("text/json", {}),
        ("application/x-www-form-urlencoded", {}),
        ("multipart/form-data; boundary=x", {}),
        ("application/json; charset=latin-1", {}),
        ("application/json; charset=utf-16", {}),
        ("application/json; charset=nonsense", {}),
        ("application/json", {"Content-Encoding": "gzip"}),
        ("application/json", {"Content-Encoding": "br"}),
    ],
    ids=["none", "empty", "text", "text/json", "form", "multipart", "latin-1", "utf-16", "no charset", "gzip", "br"],
)
def test_refuses_other_media_types(client, content_type, headers):
    answer = client.post("/predict", data=f'{{"features": {WINE_TEXT}}}', content_type=content_type, headers=headers)

    assert answer.status_code == 415
    assert problem_of(answer)["code"] == "unsupported_media_type"


def test_refuses_a_body_over_the_limit(client):
    answer = send(client, b" " * (1024 * 1024 + 1))

    assert answer.status_code == 413
    assert problem_of(answer)["code"] == "body_too_large"
    assert "1048576" in answer.json["detail"]


def test_takes_a_body_at_the_limit(client):
    answer = send(client, f'{{"features": {WINE_TEXT}}}'.encode().ljust(1024 * 1024))

    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_takes_no_other_method(client, method):
    answer = client.open("/predict", method=method)

    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("body", "secret"),
    [
        ('{"features": "s3cret"}', "s3cret"),
        ('{"s3cret" ', "s3cret"),
        ('{"wine_features": {"pH": "s3cret"}}', "s3cret"),
        (f'{{"features": [{"12345.678, " * 10}12345.678]}}', "12345.678"),
    ],
    ids=["text", "broken JSON", "value of a feature", "numbers"],
)
def test_never_echoes_a_value(client, body, secret):
    answer = send(client, body)

    assert answer.status_code in (400, 422)
    assert secret not in problem_of(answer)["detail"]
    assert secret not in answer.text


def test_a_very_long_name_is_not_echoed_whole(client):
    answer = client.post("/predict", json={"wine_features": {"x" * 10_000: 1}})

    assert answer.status_code == 422
    assert len(problem_of(answer)["errors"]) == 12
    assert len(answer.data) < 5000


# Bodies that are meant to keep a worker busy


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 500_000,
        b'{"features": "' + b"a" * 1_000_000 + b'"}',
        b'"\\' * 500_000,
        b'["' * 300_000,
        b"[}" * 500_000,
        b'{"wine_features": {' + b",".join(b'"a%d":1' % number for number in range(80_000)) + b"}}",
        b'{"features": [' + b",".join([b'"x"'] * 200_000) + b"]}",
        b"{" + b",".join(b'"a%d":1' % number for number in range(80_000)) + b"}",
        b'{"features": [' + b"1" * 1_000_000 + b"]}",
        b'{"features": [1' + b"0" * 4200 + b"]}",
    ],
    ids=[
        "text that never ends",
        "long text",
        "a quote and a backslash, again and again",
        "open arrays of open text",
        "brackets that do not match",
        "many unknown names",
        "many wrong values",
        "many unknown fields",
        "a number of a million digits",
        "a number that just fits",
    ],
)
def test_is_quick_to_refuse_a_large_body(client, body):
    answer = send(client, body)

    assert answer.status_code in (400, 422)
    assert problem_of(answer)["code"] in ("invalid_json", "validation_failed")


# Anything at all

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(), max_size=20)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=12) | st.dictionaries(st.text(st.characters(), max_size=12), inner, max_size=12)
    ),
    max_leaves=30,
)
wines = (
    st.lists(scalars, min_size=10, max_size=12)
    | st.lists(numbers, min_size=11, max_size=11)
    | st.lists(st.floats(0, 14), min_size=11, max_size=11)
    | st.fixed_dictionaries(dict.fromkeys(FEATURE_NAMES, numbers | scalars))
    | st.fixed_dictionaries(dict.fromkeys(FEATURE_NAMES, st.floats(0, 14)))
    | documents
)
fields = st.sampled_from(["features", "wine_features", "request_id"])
bodies = (
    documents | st.dictionaries(fields, wines, min_size=1, max_size=2) | st.dictionaries(fields, scalars, max_size=1)
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck], database=None)
@given(body=bodies)
@example(body={"features": [10**400] * 11})
@example(body={"wine_features": {"\ud800": 1}})
@example(body={"features": 7})
def test_any_json_document_is_answered_or_refused(client, body):
    answer = send(client, json.dumps(body))

    assert answer.status_code == 200 or problem_of(answer)["status"] in (400, 413, 422)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck], database=None)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(client, body):
    answer = send(client, body)

    assert problem_of(answer)["status"] in (400, 422)
