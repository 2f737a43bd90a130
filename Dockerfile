# The image of the service: `make image`, or `docker build --tag wine-api .` How to run it is in docs/deploy.md.
#
# It builds with and without BuildKit. pip takes an index mirror from --build-arg PIP_INDEX_URL=… (and the other three
# below), or from the pip configuration of the base image.

# Any official slim image of Python 3.11 or newer: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm
ARG PYTHON_IMAGE=python:3.11-slim-bookworm


FROM ${PYTHON_IMAGE} AS dependencies

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CONFIG_FILE
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /build
COPY requirements-build.lock requirements.lock ./
# Built and installed apart: what is only published as source is built with locked tools, and these stay behind.
# The tests of the libraries are a tenth of the image, and nobody runs them there.
RUN python -m venv tools \
    && tools/bin/pip install --require-hashes --requirement requirements-build.lock \
    && tools/bin/pip wheel --no-deps --no-build-isolation --require-hashes --requirement requirements.lock --wheel-dir wheels \
    && python -m venv --without-pip /opt/wine-api \
    && tools/bin/pip --python /opt/wine-api/bin/python install --no-index --no-deps wheels/*.whl \
    && rm -rf wheels \
    && find /opt/wine-api/lib \( -type d \( -name tests -o -path '*/joblib/test' \) -o -name conftest.py \) -prune -exec rm -rf {} +


FROM dependencies AS application

COPY pyproject.toml README.md LICENSE ./
COPY wine_api ./wine_api
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /opt/wine-api/bin/python install --no-index --no-deps --prefix /installed dist/*.whl


FROM ${PYTHON_IMAGE}

# A fixed number, so that a cluster can check it without reading /etc/passwd, and volumes can be given to it.
RUN groupadd --gid 10001 wine \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin wine

# Three layers: the dependencies change with the lock, the package with the code.
COPY --from=dependencies /opt/wine-api /opt/wine-api
COPY --from=application /installed /opt/wine-api
COPY gunicorn.conf.py wsgi.py /srv/wine-api/

# Nothing is written but STATE_DIR and MODEL_CACHE_DIR; unset, they are private folders under /tmp.
# DRAIN_SECONDS leaves requests under way their time within the 10 s that `docker stop` gives.
ENV PATH=/opt/wine-api/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    DRAIN_SECONDS=5

WORKDIR /srv/wine-api
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "wine_api.healthcheck"]
# Exec form: Gunicorn is process 1, and gets the signals itself.
CMD ["gunicorn", "--config", "gunicorn.conf.py", "wsgi:app"]

# Last, as they change with every commit.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Wine API" \
      org.opencontainers.image.description="Serves a scikit-learn wine-quality model over REST" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
