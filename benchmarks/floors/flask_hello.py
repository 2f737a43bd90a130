"""Flask with nothing in it, which reads the body and answers a small JSON object."""

from __future__ import annotations

from typing import Any

from flask import Flask, request

app = Flask(__name__)


@app.post("/predict")
def predict() -> dict[str, Any]:
    request.get_data()
    return {"hello": "wine"}
