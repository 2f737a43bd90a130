"""What a tutorial writes: Flask that calls scikit-learn, once a request. Validates, counts and logs nothing.

MODEL=model.joblib gunicorn benchmarks.floors.flask_sklearn:app
"""

from __future__ import annotations

import os
from typing import Any

import joblib
import numpy as np
from flask import Flask, request

app = Flask(__name__)
model = joblib.load(os.environ["MODEL"])


@app.post("/predict")
def predict() -> dict[str, Any]:
    (probabilities,) = model.predict_proba(np.array([request.get_json()["features"]]))
    best = probabilities.argmax()
    return {"prediction": int(model.classes_[best]), "confidence": float(probabilities[best])}


@app.post("/predict/batch")
def predict_batch() -> dict[str, Any]:
    probabilities = model.predict_proba(np.array(request.get_json()["features_list"]))
    best = probabilities.argmax(axis=1)
    return {
        "predictions": [
            {"prediction": int(label), "confidence": float(confidence)}
            for label, confidence in zip(model.classes_[best], probabilities.max(axis=1), strict=True)
        ]
    }
