# One image for every role: it starts a worker, and any other command of cortex-stream by argument.
#   docker build --tag cortex-stream .                          CPU
#   docker build --tag cortex-stream:gpu --build-arg EXTRA=gpu .   CUDA libraries included

FROM python:3.12-slim AS builder
ARG EXTRA=cpu
WORKDIR /build
COPY lock/worker-${EXTRA}.txt requirements.txt
# Wheels only: building the image never runs a package's own build script.
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.txt

FROM python:3.12-slim AS worker
# /models is made here so that a named volume mounted on it inherits the owner.
RUN groupadd --gid 10001 cortex \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin cortex \
 && install --directory --owner=10001 --group=10001 /models
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY schemas schemas
COPY topics topics
COPY cortex_stream cortex_stream
COPY agents agents
# The root file system may be read-only: /models and /tmp are all that is ever written to.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    CORTEX_MODELS__FOLDER=/models
USER 10001:10001
EXPOSE 6066
# Alive, not ready: a worker that waits for Kafka must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "cortex_stream"]
CMD ["worker"]
