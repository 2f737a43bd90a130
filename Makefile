# `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
AUDIT := var/audit
URL ?= http://127.0.0.1:8000

# What `make run` and `make dev` keep goes to ./var, one folder a port.
PORT ?= 8000
# exec: the server is make's own child, and gets the signals that make passes on.
VAR := exec env PORT=$(PORT) STATE_DIR=$${STATE_DIR:-var/state-$(PORT)} MODEL_CACHE_DIR=$${MODEL_CACHE_DIR:-var/cache-$(PORT)}
GUNICORN := $(BIN)/python tools/foreground.py $(BIN)/gunicorn --config gunicorn.conf.py wsgi:app
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
# The service writes JSON lines only, so people are told what make does on the terminal, if there is one.
SAY := @test ! -t 2 || echo >&2

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' wine_api/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help install run dev smoke check lint types test unit integration e2e fuzz audit format image up down manifests bench profile lock docs redoc clean

##@ Start
run: $(VENV)/.runtime  ## Serve at 127.0.0.1:8000 with the bundled model, as in production
	@$(VAR) $(GUNICORN)

dev: $(VENV)/.runtime  ## The same with one worker that restarts when the code changes
	@$(VAR) WEB_CONCURRENCY=1 WEB_RELOAD=yes LOG_FORMAT=$${LOG_FORMAT:-console} $(GUNICORN)

install: $(VENV)/.development  ## Make the virtual environment with everything for development

##@ Check
check: lint types test  ## All that CI checks: lint, types and tests

lint: $(VENV)/.development  ## Style, and the layers of setup.cfg
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --recursive wine_api tools gunicorn.conf.py wsgi.py

types: $(VENV)/.development  ## Static types
	$(BIN)/mypy

test: $(VENV)/.development  ## Every test; skipped are those that need a program that is not installed (see .ci/run)
	$(BIN)/pytest

unit: $(VENV)/.development  ## Tests of single parts, in seconds
	$(BIN)/pytest tests/unit

integration: $(VENV)/.development  ## Tests of the parts together: Gunicorn, S3, the file system
	$(BIN)/pytest tests/integration

e2e: $(VENV)/.development  ## Tests through the front door: HTTP and a browser
	$(BIN)/pytest tests/e2e

smoke: $(VENV)/.development  ## The end-to-end tests against a running instance: make smoke URL=https://…
	WINE_API_URL=$(URL) $(BIN)/pytest tests/e2e/test_api.py

fuzz: $(VENV)/.development  ## Made-up bodies, model files and requests, by the hundred thousand
	$(BIN)/python -m fuzz.bodies --count 1000000
	$(BIN)/python -m fuzz.plain_requests --count 1000000
	$(BIN)/python -m fuzz.models --count 20000
	SCHEMATHESIS_EXAMPLES=2000 $(BIN)/pytest tests/integration/test_anything.py

audit: $(AUDIT)/.installed  ## Known holes in what the service depends on, and its bill of materials: var/sbom.cdx.json
	@mkdir -p var
	$(AUDIT)/bin/pip-audit --requirement requirements.lock --disable-pip --strict
	$(AUDIT)/bin/pip-audit --requirement requirements.lock --disable-pip --format cyclonedx-json --output var/sbom.cdx.json

format: $(VENV)/.development  ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

##@ Ship
image:  ## Build the image wine-api:dev
	docker build --tag wine-api:dev --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(foreach argument,PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PYTHON_IMAGE,$(if $($(argument)),--build-arg $(argument))) .

up:  ## Start the service with S3, Redis, nginx, Prometheus and Grafana (needs Docker with compose 2)
	docker compose up --build --detach --wait

down:  ## End all that, and keep the models and measurements; `docker compose down --volumes` drops them
	docker compose down

manifests:  ## Write what deploy/kubernetes/overlays come to into ./var/manifests (needs kubectl)
	@mkdir -p var/manifests
	@for overlay in deploy/kubernetes/overlays/*/; do \
	  kubectl kustomize "$$overlay" >"var/manifests/$$(basename "$$overlay").yaml" && echo "var/manifests/$$(basename "$$overlay").yaml"; done

##@ Measure
bench: $(VENV)/.bench  ## Layers, engines, and the service under load (needs wrk, WINE_DATA and half an hour of a quiet machine)
	$(BIN)/python -m benchmarks.layers
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.reloads

profile: $(VENV)/.bench  ## Draw a flame graph of a worker under load: flame.svg
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m benchmarks.flame flame.svg

##@ Keep
lock: $(VENV)/.development  ## Write the lock files from pyproject.toml
	$(BIN)/uv pip compile --quiet pyproject.toml $(LOCK) --output-file requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(BIN)/uv pip compile --quiet - $(LOCK) --output-file requirements-build.lock
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev $(LOCK) --constraint requirements.lock --output-file requirements-dev.lock
	$(BIN)/uv pip compile --quiet pyproject.toml --extra bench $(LOCK) --constraint requirements.lock --output-file requirements-bench.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["audit"], sep="\n")' \
	  | $(BIN)/uv pip compile --quiet - $(LOCK) --output-file requirements-audit.lock

docs: $(VENV)/.development  ## Write the tables of docs/ (settings, metrics) and the model card's schema from the code
	$(BIN)/python tools/write_docs.py

redoc:  ## Fetch the newest ReDoc 2 into wine_api/static (needs npm's registry)
	sh tools/vendor_redoc.sh

clean:  ## Remove the virtual environment, caches and ./var
	rm -rf $(VENV) var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

LOCK := --generate-hashes --universal --python-version 3.11 --fork-strategy fewest --no-emit-index-url --custom-compile-command "make lock"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock | $(BIN)/python
	$(SAY) "Installing the locked dependencies into $(VENV) (once) …"
	@$(PIP) install --use-pep517 --require-hashes --requirement requirements.lock
	@touch $@

$(VENV)/.development: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(SAY) "Installing the locked development dependencies into $(VENV) (once) …"
	@$(PIP) install --use-pep517 --require-hashes --requirement requirements-dev.lock
	@$(PIP) install --no-deps --editable .
	@touch $@ $(VENV)/.runtime

# In an environment of its own, as it brings much that nothing else needs.
$(AUDIT)/.installed: requirements-audit.lock
	$(SAY) "Installing pip-audit into $(AUDIT) (once) …"
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/pip install --quiet --use-pep517 --require-hashes --requirement requirements-audit.lock
	@touch $@

$(VENV)/.bench: requirements-bench.lock | $(VENV)/.development
	$(SAY) "Installing the locked dependencies of the benchmarks into $(VENV) (once) …"
	@$(PIP) install --use-pep517 --require-hashes --requirement requirements-bench.lock
	@touch $@
