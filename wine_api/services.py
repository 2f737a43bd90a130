"""The objects that do the work, built once an application: the only place that picks classes."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import cast

from flask import Flask, current_app

from wine_api.config import InvalidSetting, Settings
from wine_api.draining import Draining
from wine_api.metrics import Metrics
from wine_api.response_times import ResponseTimes
from wine_api.serving.cache import ModelCache
from wine_api.serving.fleet import Fleet
from wine_api.serving.gates import Policy
from wine_api.serving.holder import ModelHolder
from wine_api.serving.ledger import Ledger
from wine_api.serving.loading import ModelLoader
from wine_api.serving.predictions import Predictions
from wine_api.serving.refresher import Refresher
from wine_api.serving.rollout import LoadLimits, Rollout
from wine_api.serving.signatures import InvalidPublicKey, parse_public_keys
from wine_api.serving.stores.base import ModelStore
from wine_api.serving.stores.local import LocalStore
from wine_api.serving.stores.s3 import S3Store
from wine_api.spans import Spans

_EXTENSION = "wine_api"
_BUNDLED_KEY = "models/1.0.0/wine_quality_model.joblib"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that views and hooks work with. Holds no connection and no thread before `refresher.start`."""

    settings: Settings
    metrics: Metrics
    response_times: ResponseTimes
    fleet: Fleet
    holder: ModelHolder
    rollout: Rollout
    refresher: Refresher
    predictions: Predictions
    spans: Spans
    started_at: float = field(default_factory=time.time)
    draining: Draining = field(default_factory=Draining)


def build_services(settings: Settings) -> Services:
    """Build all services as *settings* say."""
    metrics = Metrics()
    response_times = ResponseTimes()
    spans = Spans()
    holder = ModelHolder()
    store = _pick_store(settings)
    fleet = Fleet(settings.state_folder, store.kind)
    cache_folder = settings.model_cache_folder / _name_of(settings, store)
    rollout = Rollout(
        store=store,
        cache=ModelCache(cache_folder, spare=settings.state_folder / "models"),
        fleet=fleet,
        holder=holder,
        loader=ModelLoader(build_policy(settings)),
        metrics=metrics,
        response_times=response_times,
        spans=spans,
        limits=LoadLimits(settings.model_load_timeout, settings.model_max_bytes),
        ledger=Ledger(cache_folder),
    )
    metrics.ask_host(lambda: replace(fleet.status().gauges, worker_threads=settings.web_threads))
    return Services(
        settings=settings,
        metrics=metrics,
        response_times=response_times,
        fleet=fleet,
        holder=holder,
        rollout=rollout,
        refresher=Refresher(rollout, fleet, settings.model_cache_ttl),
        predictions=Predictions(holder, metrics),
        spans=spans,
    )


def _name_of(settings: Settings, store: ModelStore) -> str:
    """Name what is served: when the store is away, only a model of the same bucket, folder and key may stand in."""
    place = settings.s3_bucket_name or settings.model_dir or ""
    told_apart = hashlib.sha256(f"{place} {settings.model_key}".encode()).hexdigest()
    return f"{store.kind}-{told_apart[:12]}"


def build_policy(settings: Settings) -> Policy:
    """Return what *settings* ask of a model. Raises `InvalidSetting`."""
    try:
        public_keys = parse_public_keys(settings.model_public_keys)
    except InvalidPublicKey as error:
        raise InvalidSetting(f"MODEL_PUBLIC_KEYS must be ed25519 public keys; one is {error}") from error
    return Policy(settings.model_max_bytes, frozenset(settings.model_allowed_types), public_keys)


def _pick_store(settings: Settings) -> ModelStore:
    if settings.s3_bucket_name is not None:
        return S3Store(
            settings.s3_bucket_name,
            model_key=settings.model_key,
            profile=settings.aws_profile,
            region=settings.aws_default_region,
        )
    if settings.model_dir is not None:
        return LocalStore(settings.model_dir, model_key=settings.model_key)
    # No default bucket: code must never be loaded from a bucket that the operator does not own.
    bundled = cast(Path, resources.files("wine_api").joinpath("bundled"))
    return LocalStore(bundled, model_key=_BUNDLED_KEY, kind="bundled")


def use_services(app: Flask, services: Services) -> None:
    """Let *app* work with *services*."""
    app.extensions[_EXTENSION] = services


def services_of(app: Flask) -> Services:
    """Return the services of *app*."""
    return cast(Services, app.extensions[_EXTENSION])


def get_services() -> Services:
    """Return the services of the application that answers the current request."""
    return services_of(current_app)
