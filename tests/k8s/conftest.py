"""The real gateway of the serving tests, for what Kubernetes and Prometheus would ask of it."""

from tests.serving.conftest import release_root, running, start

__all__ = ["release_root", "running", "start"]
