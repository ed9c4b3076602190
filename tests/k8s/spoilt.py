"""An overlay with one field spoilt, for the tests of the judge."""

import copy
from typing import Any

from tests.k8s.objects import Object, Objects
from tests.k8s.overlays import beside, overlay

Path = tuple[str | int, ...]
POD: Path = ("spec", "template", "spec")
FIRST: Path = (*POD, "containers", 0)
NIGHTLY: Path = ("spec", "jobTemplate", "spec", "template", "spec")
NODE: Path = ("spec", "replicatedJobs", 0, "template", "spec", "template")
NAME = "app.kubernetes.io/name"
NOTHING = object()  # takes the field away

TRITON, GATEWAY = "Deployment tillwise-triton", "StatefulSet tillwise-gateway"
VALKEY, RETRAIN = "StatefulSet tillwise-valkey", "CronJob tillwise-retrain"
CALLED, SERVICE = "Service tillwise-gateway", "Service tillwise-triton"
BUDGET, POLICY = "PodDisruptionBudget tillwise-triton", "NetworkPolicy triton"
SCALER, KEDA = "HorizontalPodAutoscaler tillwise-gateway", "ScaledObject tillwise-triton"
MONITOR, ALERTS = "ServiceMonitor tillwise-triton", "PrometheusRule tillwise"
FIT, CLAIM = "JobSet tillwise-training", "PersistentVolumeClaim tillwise-data"

Case = tuple[str, Path, Any, str]  # an object, where to go, what to put there, what must be said


def spoilt(named: str, path: Path, value: Any) -> tuple[list[Object], Objects]:
    """An overlay with one field changed, and what is applied before it."""
    home = "training" if named == FIT else "scale"
    objects = copy.deepcopy(list(overlay(home)))
    place: Any = next(o for o in objects if f"{o['kind']} {o['metadata']['name']}" == named)
    for step in path[:-1]:
        place = place[step]
    if value is NOTHING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return objects, beside(home)
