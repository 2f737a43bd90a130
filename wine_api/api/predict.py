"""Predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from wine_api.api.json import MEDIA_TYPE, dump, parse, read_body
from wine_api.errors import BatchTooLarge, Fault, InvalidRequest
from wine_api.observability.requests import observed
from wine_api.schemas.predictions import PredictBatchRequest, PredictRequest
from wine_api.schemas.well_formed import read_wine, read_wines
from wine_api.security.guard import Guard, guard_of
from wine_api.services import Services, get_services
from wine_api.serving.predictions import Predicted
from wine_api.serving.wine import FEATURE_COUNT, Matrix

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

blueprint = Blueprint("predict", __name__)

_predict_request = PredictRequest()
_batch_request = PredictBatchRequest()


@blueprint.post("/predict")
def predict() -> ResponseReturnValue:
    """Say how good one wine is.

    Takes eleven numbers in exactly one of two forms: by position, as `features`, or by name, as `wine_features`. Names
    may be spelled as you like: `pH`, `fixed acidity`, `freeSulphurDioxide`. A value outside the range that the model
    saw in training is scored all the same, and named in `warnings`.

    ---
    post:
      operationId: predict
      tags: [predictions]
      parameters: [include, X-Request-ID]
      requestBody:
        required: true
        content:
          application/json:
            schema: PredictRequest
            examples: {wine_by_position: wine_by_position, wine_by_name: wine_by_name}
      responses:
        200:
          description: The prediction
          content:
            application/json:
              schema: PredictResponse
              examples:
                prediction: prediction
                prediction_with_probabilities: prediction_with_probabilities
                prediction_with_warning: prediction_with_warning
      errors: [ModelNotLoaded]
    """
    services, environ = get_services(), request.environ
    include = _include_probabilities()
    with services.spans.span("validate"):
        body = read_body(environ, services.settings.max_body_bytes)
        wine = read_wine(body)
        if wine is None:
            wine = _predict_request.load(parse(body))
    return _response(answer_for_one(environ, services, guard_of(current_app), wine, include))


@blueprint.post("/predict/batch")
def predict_batch() -> ResponseReturnValue:
    """Say how good many wines are.

    Takes wines in exactly one of two forms: `features_list` or `wine_features_list`. All are answered by one version of
    the model, in the order of the request. One bad row refuses the batch, with a pointer to it.

    ---
    post:
      operationId: predict_batch
      tags: [predictions]
      parameters: [include, X-Request-ID]
      requestBody:
        required: true
        content:
          application/json:
            schema: PredictBatchRequest
            examples: {batch_by_position: batch_by_position, batch_by_name: batch_by_name}
      responses:
        200:
          description: The predictions
          content: {application/json: {schema: PredictBatchResponse, examples: {batch: batch}}}
      errors: [BatchTooLarge, ModelNotLoaded]
    """
    services, environ = get_services(), request.environ
    include = _include_probabilities()
    with services.spans.span("validate"):
        body = read_body(environ, services.settings.max_body_bytes)
        wines = read_wines(body, services.settings.max_batch_rows)
        if wines is None:
            wines = _load_batch(parse(body), services.settings.max_batch_rows)
    return _response(answer_for_many(environ, services, guard_of(current_app), wines, include))


def answer_for_one(
    environ: WSGIEnvironment, services: Services, guard: Guard, wine: Matrix, include_probabilities: bool
) -> bytes:
    """Return the answer to the request in *environ*, which *guard* has admitted, for *wine*, shape (1, 11).

    Raises `ModelNotLoaded`, and what `Guard.admit_rows` raises.
    """
    guard.admit_rows(environ, 1)
    with services.spans.span("predict"):
        predicted = services.predictions.predict(wine)
    with services.spans.span("respond"):
        return dump(_rows(predicted, include_probabilities)[0] | _accounts(predicted, environ))


def answer_for_many(
    environ: WSGIEnvironment, services: Services, guard: Guard, wines: Matrix, include_probabilities: bool
) -> bytes:
    """Return the answer to the request in *environ*, which *guard* has admitted, for *wines*, shape (rows, 11).

    Raises `ModelNotLoaded`, and what `Guard.admit_rows` raises.
    """
    guard.admit_rows(environ, len(wines))
    with services.spans.span("predict"):
        predicted = services.predictions.predict(wines)
        services.metrics.batch_rows.observe(len(wines))
    with services.spans.span("respond"):
        rows = _rows(predicted, include_probabilities)
        return dump({"predictions": rows, "batch_size": len(rows), **_accounts(predicted, environ)})


def _response(content: bytes) -> Response:
    return Response(content, content_type=MEDIA_TYPE)


def _include_probabilities() -> bool:
    """Whether the caller asked for probabilities, with `?include=probabilities`."""
    if not request.query_string:
        return False
    included = request.args.getlist("include")
    if any(word != "probabilities" for word in included):
        raise InvalidRequest(
            "The request has 1 problem.",
            [Fault("", "invalid_parameter", "The query parameter include takes only the word probabilities.")],
        )
    return bool(included)


def _load_batch(document: Any, most_rows: int) -> Matrix:
    """Return the wines in *document*; too many rows are refused before any of them is looked at."""
    forms = document.values() if isinstance(document, dict) else ()
    if any(isinstance(rows, list) and len(rows) > most_rows for rows in forms):
        raise BatchTooLarge(f"A batch may have at most {most_rows} rows.")
    wines: Matrix = _batch_request.load(document)
    return wines


def _rows(predicted: Predicted, include_probabilities: bool) -> list[dict[str, Any]]:
    """Return what the response says of each wine."""
    answers = predicted.answers
    confidences = [None] * len(answers.labels) if answers.confidences is None else answers.confidences.tolist()
    rows: list[dict[str, Any]] = [
        {"prediction": label, "confidence": confidence}
        for label, confidence in zip(answers.labels, confidences, strict=True)
    ]
    if include_probabilities and answers.probabilities is not None:
        names = [str(label) for label in predicted.model.classes or ()]
        for row, probabilities in zip(rows, answers.probabilities.tolist(), strict=True):
            row["probabilities"] = dict(zip(names, probabilities, strict=True))
    for number, warnings in predicted.warnings.items():
        rows[number]["warnings"] = warnings
    return rows


def _accounts(predicted: Predicted, environ: WSGIEnvironment) -> dict[str, Any]:
    """Return what the response says of how it came about, and note it for the log."""
    request_seen = observed(environ)
    request_seen.predicted = predicted
    return {
        "model_version": predicted.model.version,
        "processing_time_ms": round(1000 * request_seen.seconds, 3),
        "features_processed": FEATURE_COUNT,
    }
