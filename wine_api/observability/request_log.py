"""The one log line of each request."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from wine_api.observability import logs
from wine_api.serving.predictions import Predicted

if TYPE_CHECKING:
    from wine_api.observability.requests import ObservedRequest

logger = logging.getLogger("wine_api.access")

_MOST_LABELS = 20
_MOST_ROWS_WITH_FEATURES = 10  # more do not fit into a line


class RequestLog:
    """Writes the line of a request, and what was predicted to the *share* of them that is asked for.

    What was measured (*features*) is the callers' own, and is written only where the operator wants it.
    """

    def __init__(self, share: float = 1.0, *, features: bool = False) -> None:
        self._share = share
        self._features = features

    def write(self, request: ObservedRequest) -> None:
        """Write the line of *request*, which is over."""
        line: dict[str, Any] = {
            "request_id": request.request_id,
            "method": request.method,
            "route": request.route,
            "path": request.path,
            "status": request.status,
            "duration_ms": round(1000 * (time.perf_counter() - request.started), 3),
            "client": request.client,
        }
        if request.span is not None:
            line["trace_id"] = request.span.trace_id
        if request.caller is not None:
            line["caller"] = request.caller
        if request.outcome is not None:
            line["outcome"] = request.outcome
            self._add_predictions(line, request.predicted)
        logs.write(logger, logging.INFO, "request", line)

    def _add_predictions(self, line: dict[str, Any], predicted: Predicted | None) -> None:
        line["model_version"] = None if predicted is None else predicted.model.version
        line["generation"] = None if predicted is None else predicted.model.generation
        line["rows"] = None if predicted is None else len(predicted.answers.labels)
        if predicted is None or not self._is_chosen():
            return
        line |= _results(predicted)
        if self._features:
            line["features"] = predicted.wines[:_MOST_ROWS_WITH_FEATURES].tolist()

    def _is_chosen(self) -> bool:
        return self._share >= 1.0 or random.random() < self._share  # noqa: S311  # nosec B311  # a sample, not a secret


def _results(predicted: Predicted) -> dict[str, Any]:
    """Return what was predicted: one answer as it is, many in short."""
    labels, confidences = predicted.answers.labels, predicted.answers.confidences
    if len(labels) == 1:
        return {"prediction": labels[0], "confidence": None if confidences is None else confidences.item()}
    return {
        "predictions": {str(label): count for label, count in Counter(labels).most_common(_MOST_LABELS)},
        "confidence": None if confidences is None else round(float(confidences.mean()), 4),
    }
