"""The metrics, as Prometheus scrapes them."""

from __future__ import annotations

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from wine_api.services import get_services

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Show all metrics, summed over all workers.

    ---
    get:
      operationId: get_metrics
      tags: [service]
      parameters: [metric_names]
      responses:
        200:
          description: Prometheus' text format, or OpenMetrics where `Accept` asks for it
          content:
            text/plain: {schema: {type: string}}
            application/openmetrics-text: {schema: {type: string}}
    """
    text, content_type = get_services().metrics.render(
        request.headers.get("Accept", ""), names=request.args.getlist("name[]")
    )
    return Response(text, content_type=content_type)
