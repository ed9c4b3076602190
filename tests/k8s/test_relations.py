"""The judge of the manifests refuses what does not fit together and what leads nowhere."""

from typing import Any

import pytest

from tests.k8s.objects import chooses
from tests.k8s.overlays import BEFORE, OVERLAYS, beside, overlay, problems
from tests.k8s.relations import seconds
from tests.k8s.spoilt import (
    BUDGET,
    CALLED,
    FIRST,
    FIT,
    GATEWAY,
    KEDA,
    MONITOR,
    NAME,
    NIGHTLY,
    NODE,
    NOTHING,
    POD,
    POLICY,
    RETRAIN,
    SCALER,
    SERVICE,
    TRITON,
    VALKEY,
    Case,
    Path,
    spoilt,
)

# What does not fit together, in an object or between objects.
TOGETHER: list[Case] = [
    (TRITON, (*FIRST, "resources", "requests", "memory"), "7Gi", "7Gi, above its limit 6Gi"),
    (TRITON, (*FIRST, "resources", "requests", "memory"), "512m", "512m is finer than 1"),
    (TRITON, (*FIRST, "resources", "requests", "cpu"), "0.5m", "0.5m is finer than 0.001"),
    (
        FIT,
        (*NODE, "spec", "containers", 0, "resources", "limits", "nvidia.com/gpu"),
        2,
        "nvidia.com/gpu needs a limit, and a request only of the same",
    ),
    (TRITON, (*POD, "restartPolicy"), "Never", "restartPolicy Never is none of Always"),
    (RETRAIN, (*NIGHTLY, "restartPolicy"), NOTHING, "restartPolicy Always is none of Never"),
    (TRITON, ("spec", "template", "metadata", "labels", NAME), "x", "not choose its own pods"),
    (TRITON, ("spec", "selector", "matchLabels", NAME), "x", "not choose its own pods"),
    (
        TRITON,
        (*POD, "topologySpreadConstraints", 0, "labelSelector", "matchLabels", NAME),
        "tillwise-gateway",
        "count other pods than its own",
    ),
    (
        TRITON,
        (*POD, "topologySpreadConstraints", 1, "whenUnsatisfiable"),
        "ScheduleAnyway",
        "minDomains needs",
    ),
    (TRITON, ("spec", "strategy", "rollingUpdate", "maxSurge"), 0, "no pod can be replaced"),
    (TRITON, (*POD, "volumes", 0, "configMap"), {"name": "x"}, "not of exactly one sort"),
    (TRITON, (*POD, "volumes", 1, "name"), "artefacts", "volume artefacts twice"),
    (TRITON, (*POD, "containers", 1, "name"), "triton", "container triton twice"),
    (TRITON, (*FIRST, "ports", 1, "name"), "http", "port http twice"),
    (TRITON, (*FIRST, "volumeMounts", 1, "mountPath"), "/artefacts", "mountPath /artefacts twice"),
    (TRITON, (*FIRST, "env"), [{"name": "A"}, {"name": "A"}], "variable A twice"),
    (TRITON, (*FIRST, "volumeMounts", 0, "name"), "artifacts", "mounts artifacts, which is no"),
    (GATEWAY, ("spec", "volumeClaimTemplates", 0, "metadata", "name"), "s", "mounts state, which"),
    (TRITON, (*FIRST, "livenessProbe", "httpGet", "port"), "web", "livenessProbe asks port web"),
    (
        VALKEY,
        (*FIRST, "readinessProbe", "tcpSocket", "port"),
        "web",
        "readinessProbe asks port web",
    ),
    (TRITON, (*FIRST, "livenessProbe", "httpGet"), NOTHING, "livenessProbe takes one of"),
    (TRITON, (*FIRST, "livenessProbe", "successThreshold"), 2, "no successThreshold but 1"),
    (SCALER, ("spec", "minReplicas"), 9, "minReplicas 9 is above maxReplicas 8"),
    (KEDA, ("spec", "minReplicaCount"), 9, "minReplicaCount 9 is above maxReplicaCount 8"),
    (BUDGET, ("spec", "maxUnavailable"), 1, "takes one of minAvailable and maxUnavailable"),
    (SERVICE, ("spec", "ports", 1, "name"), "http", "port http twice"),
    (SERVICE, ("spec", "ports", 0, "name"), NOTHING, "of several ports each needs a name"),
    (MONITOR, ("spec", "endpoints", 0, "scrapeTimeout"), "1m", "1m is above interval 15s"),
    (TRITON, ("metadata", "namespace"), "elsewhere", "there is no namespace elsewhere"),
    (TRITON, (*POD, "serviceAccountName"), "nobody", "there is no ServiceAccount nobody"),
    (FIT, (*NODE, "spec", "serviceAccountName"), "nobody", "there is no ServiceAccount nobody"),
    (
        TRITON,
        (*POD, "initContainers", 0, "envFrom", 0, "configMapRef", "name"),
        "tillwise-settings",
        "there is no ConfigMap tillwise-settings",
    ),
    (
        TRITON,
        (*FIRST, "env"),
        [
            {
                "name": "A",
                "valueFrom": {"configMapKeyRef": {"name": "tillwise-dashboard", "key": "a"}},
            }
        ],
        "ConfigMap tillwise-dashboard has no a",
    ),
    (
        TRITON,
        (*POD, "volumes", 1),
        {"name": "scratch", "configMap": {"name": "none"}},
        "there is no ConfigMap none",
    ),
    (
        TRITON,
        (*POD, "volumes", 1),
        {"name": "scratch", "secret": {"secretName": "none"}},
        "README.md creates no secret none",
    ),
    (
        TRITON,
        (*POD, "volumes", 1),
        {"name": "scratch", "projected": {"sources": [{"secret": {"name": "none"}}]}},
        "README.md creates no secret none",
    ),
    (TRITON, (*POD, "imagePullSecrets"), [{"name": "pull"}], "README.md creates no secret pull"),
    (
        TRITON,
        (*POD, "initContainers", 0, "envFrom", 1, "secretRef", "name"),
        "tillwise-store",
        "README.md creates no secret tillwise-store",
    ),
    (
        GATEWAY,
        (*FIRST, "env", 0, "valueFrom", "secretKeyRef", "name"),
        "tillwise-key",
        "README.md creates no secret tillwise-key",
    ),
    (
        GATEWAY,
        (*FIRST, "env", 0, "valueFrom", "secretKeyRef", "key"),
        "master",
        "README.md gives secret tillwise-keys no master",
    ),
    (
        RETRAIN,
        (*NIGHTLY, "volumes", 0),
        {"name": "data", "persistentVolumeClaim": {"claimName": "date"}},
        "there is no PersistentVolumeClaim date",
    ),
    (GATEWAY, ("spec", "serviceName"), "tillwise-gateway", "no headless Service tillwise-gateway"),
    (GATEWAY, ("spec", "serviceName"), "tillwise-pods", "no headless Service tillwise-pods"),
    (SCALER, ("spec", "scaleTargetRef", "name"), "gateway", "StatefulSet gateway to scale"),
    (SCALER, ("spec", "scaleTargetRef", "apiVersion"), "apps/v2", "no apps/v2 StatefulSet"),
    (KEDA, ("spec", "scaleTargetRef", "name"), "triton", "Deployment triton to scale"),
    (KEDA, ("spec", "scaleTargetRef", "kind"), "StatefulSet", "StatefulSet tillwise-triton to"),
    (
        KEDA,
        ("spec", "scaleTargetRef"),
        {"kind": "StatefulSet", "name": "tillwise-gateway"},
        "StatefulSet tillwise-gateway: has two autoscalers",
    ),
    (TRITON, ("spec", "replicas"), 2, "Deployment tillwise-triton sets replicas too"),
    (CALLED, ("spec", "selector", NAME), "gateway", "chooses the pods of 0 objects"),
    (CALLED, ("spec", "ports", 0, "targetPort"), "web", "has no port web"),
    (CALLED, ("spec", "ports", 0, "targetPort"), 8081, "has no port 8081"),
    (CALLED, ("spec", "ports", 0, "targetPort"), NOTHING, "has no port 80"),
    (MONITOR, ("spec", "endpoints", 0, "port"), "metric", "Service tillwise-triton has no port"),
    (MONITOR, ("spec", "selector", "matchLabels", NAME), "triton", "chooses 0 Services, not one"),
    (BUDGET, ("spec", "selector", "matchLabels", NAME), "triton", "chooses the pods of 0 objects"),
    (BUDGET, ("spec", "selector", "matchLabels"), {}, "chooses the pods of 6 objects, not of one"),
    (POLICY, ("spec", "podSelector", "matchLabels", NAME), "triton", "podSelector chooses no pods"),
    (
        POLICY,
        ("spec", "ingress", 0, "from", 0, "podSelector", "matchLabels", NAME),
        "gateway",
        "a podSelector of ingress chooses no pods",
    ),
    (POLICY, ("spec", "ingress", 0, "ports", 0, "port"), "web", "no pod of ingress has port web"),
    (
        "NetworkPolicy gateway",
        ("spec", "egress", 0, "ports", 0, "port"),
        "valkey",
        "no pod of egress has port valkey",
    ),
]

# What is unusual and right.
RIGHT: list[tuple[str, Path, Any]] = [
    (TRITON, (*FIRST, "resources", "requests", "memory"), "6.0e9"),
    (TRITON, (*FIRST, "resources", "requests", "cpu"), 0.5),
    (TRITON, (*FIRST, "image"), "registry:5000/tillwise/gateway@sha256:00ff"),
    (TRITON, (*FIRST, "livenessProbe", "httpGet", "port"), 8000),
    (TRITON, ("spec", "strategy"), {"type": "Recreate"}),
    (BUDGET, ("spec", "minAvailable"), "50%"),
    (RETRAIN, ("spec", "schedule"), "*/5 8-18 1,15 Jan-mar mon-FRI"),
    (RETRAIN, ("spec", "timeZone"), "Etc/UTC"),
    (CALLED, ("spec", "ports", 0, "targetPort"), 8080),
    (KEDA, ("spec", "scaleTargetRef", "kind"), NOTHING),
    (KEDA, ("spec", "scaleTargetRef", "apiVersion"), NOTHING),
    (
        BUDGET,
        ("spec", "selector"),
        {"matchExpressions": [{"key": NAME, "operator": "In", "values": ["tillwise-triton"]}]},
    ),
]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_no_problems(name: str) -> None:
    assert problems(overlay(name), beside(name)) == []


@pytest.mark.parametrize(("named", "path", "value", "said"), TOGETHER)
def test_what_does_not_fit_together_is_refused(
    named: str, path: Path, value: Any, said: str
) -> None:
    found = problems(*spoilt(named, path, value))
    assert [one for one in found if said in one], found


@pytest.mark.parametrize(("named", "path", "value"), RIGHT)
def test_what_is_unusual_is_not_refused(named: str, path: Path, value: Any) -> None:
    assert problems(*spoilt(named, path, value)) == []


def test_what_was_applied_before_counts() -> None:
    (alone,) = BEFORE
    assert problems(overlay(alone)) == [
        *(
            f"{one['kind']} {one['metadata']['name']}: there is no namespace tillwise"
            for one in overlay(alone)
        ),
        f"{FIT}: there is no PersistentVolumeClaim tillwise-data",
    ]


@pytest.mark.parametrize(
    ("operator", "values", "chosen"),
    [
        *(("In", ["a"], True), ("In", ["b"], False), ("NotIn", ["a"], False)),
        *(("NotIn", ["b"], True), ("Exists", [], True), ("DoesNotExist", [], False)),
    ],
)
def test_a_selector_chooses_by_expressions(operator: str, values: list[str], chosen: bool) -> None:
    asked = {"key": "x", "operator": operator, "values": values}
    assert chooses({"matchExpressions": [asked]}, {"x": "a"}) is chosen
    absent = operator in ("NotIn", "DoesNotExist")
    assert chooses({"matchExpressions": [asked]}, {"y": "a"}) is absent


def test_a_duration_is_a_number_of_seconds() -> None:
    assert (seconds("1m30s"), seconds("250ms"), seconds("1h")) == (90, 0.25, 3600)
