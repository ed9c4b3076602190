# The serving image: the gateway alone, without torch. Models and releases are mounted, never baked in,
# so that a new release needs no new image.
#   docker build -t tillwise .
#   docker run -p 8080:8080 -v "$PWD/model_repository:/srv/tillwise/model_repository:ro" \
#     -v "$PWD/releases:/srv/tillwise/releases" -v tillwise-state:/srv/tillwise/state tillwise

FROM python:3.11-slim AS build
WORKDIR /source
RUN python -m venv /opt/tillwise
# The dependencies change seldom and the source often: an install each, so that the first stays cached.
COPY pyproject.toml constraints.txt LICENSE ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['serve']))" > requirements.txt \
    && /opt/tillwise/bin/pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY contract contract
COPY training training
COPY serving serving
COPY benchmarks benchmarks
COPY web web
RUN /opt/tillwise/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /srv/tillwise --create-home tillwise \
    && install -d -o tillwise /srv/tillwise/state /srv/tillwise/releases /srv/tillwise/model_repository
COPY --from=build /opt/tillwise /opt/tillwise
ENV PATH=/opt/tillwise/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TILLWISE_HOST=0.0.0.0
WORKDIR /srv/tillwise
# By number, so that an orchestrator can check that it is not root.
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=1)"]
CMD ["tillwise-serve", "run"]
