"""The judge of the manifests refuses what a field must not hold."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.k8s.formats import FORMATS, amount
from tests.k8s.overlays import definitions, overlay, problems
from tests.k8s.spoilt import (
    ALERTS,
    BUDGET,
    CLAIM,
    FIRST,
    FIT,
    GATEWAY,
    KEDA,
    MONITOR,
    NAME,
    NODE,
    NOTHING,
    POD,
    POLICY,
    RETRAIN,
    SCALER,
    SERVICE,
    TRITON,
    Case,
    Path,
    spoilt,
)
from tests.k8s.values import OBJECT_NAMES, RULES, named

# What no object of its kind may hold.
FIELDS: list[Case] = [
    (TRITON, ("spec", "replicsa"), 2, "replicsa"),
    (TRITON, ("spec", "replicas"), "two", "spec.replicas"),
    (GATEWAY, (*FIRST, "image"), 7, "image"),
    (RETRAIN, ("spec", "jobTemplate", "spec", "templates"), {}, "templates"),
    (POLICY, ("spec", "ingres"), [], "ingres"),
    (MONITOR, ("spec", "endpoints", 0, "intervall"), "15s", "intervall"),
    (MONITOR, ("spec", "endpoints", 0, "interval"), 15, "interval"),
    (ALERTS, ("spec", "groups", 0, "rules", 0, "severity"), "critical", "severity"),
    (KEDA, ("spec", "maxReplicas"), 8, "maxReplicas"),
    (KEDA, ("spec", "triggers", 0, "metadata", "treshold"), "1", "treshold"),
    (FIT, ("spec", "replicatedJobs", 0, "template", "spec", "completion"), 2, "completion"),
    (FIT, (*NODE, "spec", "nodeSelectors"), {}, "nodeSelectors"),
    (FIT, ("spec", "failurePolicy", "maxRestart"), 3, "maxRestart"),
    (SERVICE, ("kind",), "Servic", "no schema"),
    (KEDA, ("kind",), "ScaledObjects", "no schema"),
    (MONITOR, ("apiVersion",), "monitoring.coreos.com/v2", "no schema"),
    (SCALER, ("apiVersion",), "autoscaling/v2beta2", "no schema"),
    (RETRAIN, ("apiVersion",), "batch/v1beta1", "no schema"),
]

# What the field's own schema takes for good.
VALUES: list[Case] = [
    (TRITON, (*FIRST, "resources", "requests", "cpu"), "abc", "'abc' is not a 'quantity'"),
    (TRITON, (*FIRST, "resources", "limits", "memory"), "1Gb", "'1Gb' is not a 'quantity'"),
    (TRITON, (*FIRST, "resources", "requests", "cpu"), -1, "-1 is not a 'quantity'"),
    (TRITON, (*POD, "volumes", 0, "emptyDir", "sizeLimit"), "10G1", "'10G1' is not a 'quantity'"),
    (CLAIM, ("spec", "resources", "requests", "storage"), "100 Gi", "is not a 'quantity'"),
    (SCALER, ("spec", "metrics", 0, "pods", "target", "averageValue"), "two", "'quantity'"),
    (FIT, (*NODE, "spec", "containers", 0, "resources", "limits", "memory"), "64GiB", "'quantity'"),
    (TRITON, (*POD, "restartPolicy"), "Sometimes", "restartPolicy: 'Sometimes'"),
    (FIT, (*NODE, "spec", "restartPolicy"), "never", "restartPolicy: 'never'"),
    (TRITON, (*FIRST, "imagePullPolicy"), "maybe", "imagePullPolicy: 'maybe'"),
    (TRITON, (*FIRST, "image"), "Tillwise/Gateway", "image: 'Tillwise/Gateway'"),
    (
        TRITON,
        (*POD, "topologySpreadConstraints", 0, "whenUnsatisfiable"),
        "Never",
        "whenUnsatisfiable: 'Never'",
    ),
    (TRITON, (*POD, "topologySpreadConstraints", 0, "maxSkew"), 0, "maxSkew: 0"),
    (TRITON, (*POD, "securityContext", "seccompProfile", "type"), "Default", "type: 'Default'"),
    (TRITON, (*POD, "volumes", 3, "emptyDir", "medium"), "memory", "medium: 'memory'"),
    (TRITON, ("spec", "strategy", "rollingUpdate", "maxUnavailable"), "110%", "maxUnavailable"),
    (TRITON, ("spec", "strategy", "type"), "Rolling", "type: 'Rolling'"),
    (TRITON, (*FIRST, "ports", 0, "protocol"), "HTTP", "protocol: 'HTTP'"),
    (TRITON, (*FIRST, "ports", 0, "containerPort"), 99999, "containerPort: 99999"),
    (TRITON, (*FIRST, "livenessProbe", "periodSeconds"), 0, "periodSeconds: 0"),
    (TRITON, (*FIRST, "livenessProbe", "httpGet", "path"), "v2", "path: 'v2'"),
    (TRITON, (*FIRST, "volumeMounts", 0, "mountPath"), "artefacts", "mountPath: 'artefacts'"),
    (GATEWAY, ("spec", "podManagementPolicy"), "Serial", "podManagementPolicy: 'Serial'"),
    (GATEWAY, ("spec", "volumeClaimTemplates", 0, "spec", "accessModes", 0), "RWO", "'RWO'"),
    (FIT, (*NODE, "spec", "tolerations", 0, "operator"), "Is", "operator: 'Is'"),
    (FIT, (*NODE, "spec", "tolerations", 0, "effect"), "Run", "effect: 'Run'"),
    (BUDGET, ("spec", "minAvailable"), "200%", "minAvailable: '200%'"),
    (BUDGET, ("spec", "minAvailable"), -1, "minAvailable: -1"),
    (SCALER, ("spec", "minReplicas"), 0, "minReplicas: 0"),
    (SCALER, ("spec", "metrics", 0, "type"), "Pod", "type: 'Pod'"),
    (SCALER, ("spec", "metrics", 0, "pods", "target", "type"), "Average", "type: 'Average'"),
    (SCALER, ("spec", "behavior", "scaleDown", "policies", 0, "periodSeconds"), 3600, "3600"),
    (SCALER, ("spec", "behavior", "scaleDown", "policies", 0, "type"), "Replicas", "'Replicas'"),
    (RETRAIN, ("spec", "schedule"), "nightly", "'nightly' is not a 'cron schedule'"),
    (RETRAIN, ("spec", "timeZone"), "Berlin", "'Berlin' is not a 'time zone'"),
    (RETRAIN, ("spec", "concurrencyPolicy"), "Wait", "concurrencyPolicy: 'Wait'"),
    (RETRAIN, ("spec", "jobTemplate", "spec", "backoffLimit"), -1, "backoffLimit: -1"),
    (SERVICE, ("spec", "type"), "Internal", "type: 'Internal'"),
    (SERVICE, ("spec", "ports", 0, "port"), 0, "port: 0"),
    (SERVICE, ("spec", "ports", 0, "targetPort"), 70000, "targetPort: 70000"),
    (POLICY, ("spec", "policyTypes", 0), "In", "policyTypes.0: 'In'"),
    (POLICY, ("spec", "ingress", 0, "ports", 0, "port"), 65536, "port: 65536"),
    (
        "NetworkPolicy release-store",
        ("spec", "egress", 0, "to", 0, "ipBlock", "cidr"),
        "0.0.0.0/33",
        "'0.0.0.0/33' is not a 'CIDR'",
    ),
    (TRITON, ("metadata", "name"), "Upper_Case", "metadata.name: 'Upper_Case'"),
    (TRITON, ("metadata", "name"), NOTHING, "'name' is a required property"),
    (TRITON, ("metadata", "namespace"), "till.wise", "metadata.namespace"),
    (SERVICE, ("metadata", "name"), "1st", "metadata.name: '1st'"),
    (RETRAIN, ("metadata", "name"), "a" * 53, "is too long"),
    (KEDA, ("metadata", "name"), "tillwise_triton", "metadata.name: 'tillwise_triton'"),
    (TRITON, ("metadata", "labels", "part of"), "shop", "'part of'"),
    (TRITON, ("spec", "template", "metadata", "labels", NAME), "-a", "labels.app"),
    (TRITON, (*FIRST, "name"), "Triton", "name: 'Triton'"),
    (TRITON, (*FIRST, "ports", 0, "name"), "a-name-too-long-", "name: 'a-name-too-long-'"),
    (TRITON, (*FIRST, "ports", 0, "name"), "8000", "name: '8000'"),
    (TRITON, (*POD, "volumes", 0, "name"), "art_efacts", "name: 'art_efacts'"),
]


@pytest.mark.parametrize(("one", "path", "value", "said"), FIELDS + VALUES)
def test_what_no_object_may_hold_is_refused(one: str, path: Path, value: Any, said: str) -> None:
    found = problems(*spoilt(one, path, value))
    assert len(found) == 1, found
    assert said in found[0]


def test_one_name_twice_is_refused() -> None:
    assert problems([*overlay("cpu"), overlay("cpu")[0]]) == ["Namespace tillwise: twice"]


def every_rule() -> Iterator[tuple[str, str, Any]]:
    """Each rule's definition and field, with a value just outside of it."""
    for name, fields in RULES.items():
        for field, rule in fields.items():
            if "minimum" in rule:
                yield name, field, rule["minimum"] - 1
            if "maximum" in rule:
                yield name, field, rule["maximum"] + 1
            if "maxLength" in rule:
                yield name, field, "a" * (rule["maxLength"] + 1)
            if {"enum", "pattern", "format"} & rule.keys():
                yield name, field, "~ no such\n"
            if "items" in rule:
                yield name, field, ["~ no such"]
            if "propertyNames" in rule:
                yield name, field, {"~ no such": "a"}
            if "additionalProperties" in rule:
                yield name, field, {"a": "~ no such"}


@pytest.mark.parametrize(("name", "field", "value"), list(every_rule()))
def test_every_rule_bites(name: str, field: str, value: Any) -> None:
    where = f"https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.{name}"
    judge = Draft202012Validator({"$ref": where}, registry=definitions(), format_checker=FORMATS)
    said = [error for error in judge.iter_errors({field: value}) if field in error.absolute_path]
    assert said
    assert all(error.validator != "type" for error in said), "a schema without rules says so too"


@pytest.mark.parametrize(("kind", "rule"), list(OBJECT_NAMES.items()))
def test_a_kind_refuses_a_longer_name(kind: str, rule: dict[str, Any]) -> None:
    judge = Draft202012Validator(named(kind))
    assert judge.is_valid({"metadata": {"name": "a" * rule["maxLength"]}})
    assert not judge.is_valid({"metadata": {"name": "a" * (rule["maxLength"] + 1)}})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100m", "0.1"),
        ("1Ki", "1024"),
        ("2Ei", "2305843009213693952"),
        ("1E", "1e18"),
        ("1e3", "1000"),
        ("3k", "3000"),
        (".5", "0.5"),
    ],
)
def test_a_quantity_is_a_number(text: str, number: str) -> None:
    assert amount(text) == Decimal(number)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("cron schedule", text) for text in ("* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *")),
        *(
            ("cron schedule", text)
            for text in ("5-1 * * * *", "*/0 * * * *", "1, * * * *", "@noon")
        ),
        *(("quantity", text) for text in ("", "1K", "1 Gi", "1gi", "Gi", "1e", "1.2.3")),
        *(("time zone", text) for text in ("", "../UTC", "Europe")),
        *(("CIDR", text) for text in ("10.0.0.1/8", "10.0.0/8", "all")),
    ],
)
def test_a_text_that_nothing_parses_is_refused(kind: str, text: str) -> None:
    assert not FORMATS.conforms(text, kind)
