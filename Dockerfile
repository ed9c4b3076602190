# Two images from one file. Releases and models are pulled, never baked in, so that a new release needs
# no new image. What is installed, and how, stands in scripts/install-image.sh, which the tests run.
#   docker build --target gateway -t tillwise/gateway:0.1.0 .
#   docker build --target trainer -t tillwise/trainer:0.1.0 .
#   docker run -p 8080:8080 -v "$PWD/model_repository:/srv/tillwise/model_repository:ro" \
#     -v "$PWD/releases:/srv/tillwise/releases" -v tillwise-state:/srv/tillwise/state tillwise/gateway:0.1.0

FROM python:3.11-slim AS source
WORKDIR /source
# Loops are compiled here for any processor of the architecture, and found again where they run.
ENV NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=
COPY pyproject.toml constraints.txt overrides.txt LICENSE ./
COPY scripts scripts

FROM source AS gateway-build
RUN scripts/install-image.sh gateway /opt/tillwise dependencies
COPY contract contract
COPY training training
COPY serving serving
COPY benchmarks benchmarks
COPY web web
RUN scripts/install-image.sh gateway /opt/tillwise package

FROM source AS trainer-build
# A GPU trainer: --build-arg TORCH_INDEX=... with an index of CUDA builds.
ARG TORCH_INDEX=
RUN scripts/install-image.sh trainer /opt/tillwise dependencies
COPY contract contract
COPY training training
COPY serving serving
COPY benchmarks benchmarks
COPY web web
RUN scripts/install-image.sh trainer /opt/tillwise package

FROM python:3.11-slim AS base
RUN useradd --system --uid 10001 --home-dir /srv/tillwise --create-home tillwise \
    && install -d -o tillwise /srv/tillwise/state /srv/tillwise/releases /srv/tillwise/model_repository
ENV PATH=/opt/tillwise/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=
WORKDIR /srv/tillwise
# By number, so that an orchestrator can check that it is not root.
USER 10001

FROM base AS trainer
# OpenMP, which LightGBM's baseline asks of the system.
USER 0
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
USER 10001
COPY --from=trainer-build /opt/tillwise /opt/tillwise
CMD ["tillwise-train", "--help"]

FROM base AS gateway
COPY --from=gateway-build /opt/tillwise /opt/tillwise
ENV TILLWISE_HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=1)"]
CMD ["tillwise-serve", "run"]
