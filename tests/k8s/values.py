"""What a field may hold, where Kubernetes' published schemas only say that it is a string or a
number: quantities, names, enumerations, ranges. Written from its API reference and added to the
schemas' definitions, so that a rule holds wherever the definition is used.
"""

from typing import Any

Schema = dict[str, Any]


def one_of(*words: str) -> Schema:
    """These words, or nothing."""
    return {"enum": [*words, None]}


def between(least: int, most: int | None = None) -> Schema:
    """A number in a closed range."""
    return {"minimum": least} | ({} if most is None else {"maximum": most})


def spelled(pattern: str, longest: int) -> Schema:
    """Text that as a whole matches the pattern."""
    return {"pattern": rf"^(?:{pattern})\Z", "maxLength": longest}


_WORD = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_VALUE = spelled(r"([A-Za-z0-9]([-\w.]*[A-Za-z0-9])?)?", 63)
_KEY = spelled(rf"({_WORD}(\.{_WORD})*/)?[A-Za-z0-9]([-\w.]{{0,61}}[A-Za-z0-9])?", 317)
LABEL = spelled(_WORD, 63)
SUBDOMAIN = spelled(rf"{_WORD}(\.{_WORD})*", 253)
PORT = between(1, 65535)
PORT_NAME = spelled(r"(?=.*[a-z])(?!.*--)" + _WORD, 15)
PORT_OR_NAME = PORT | PORT_NAME
SHARE = between(0) | spelled(r"(\d|[1-9]\d|100)%", 4)  # of the replicas: a number or percent
LABELS: Schema = {"propertyNames": _KEY, "additionalProperties": _VALUE}
ANNOTATIONS: Schema = {"propertyNames": _KEY}
MODES = one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
PROTOCOL = one_of("TCP", "UDP", "SCTP")

# The name of a whole object, where its kind takes less than a subdomain.
OBJECT_NAMES: dict[str, Schema] = {
    "Namespace": LABEL,
    "Service": spelled(r"[a-z]([-a-z0-9]*[a-z0-9])?", 63),
    "StatefulSet": LABEL,  # the host name of its pods
    "CronJob": SUBDOMAIN | {"maxLength": 52},  # its jobs append eleven letters
    "Job": SUBDOMAIN | {"maxLength": 63},
    "JobSet": LABEL,
}

# By definition (shared prefix left out), what its fields may hold besides.
RULES: dict[str, dict[str, Schema]] = {
    "apimachinery.pkg.apis.meta.v1.ObjectMeta": {
        "name": SUBDOMAIN,
        "namespace": LABEL,
        "labels": LABELS,
        "annotations": ANNOTATIONS,
    },
    "apimachinery.pkg.apis.meta.v1.LabelSelector": {"matchLabels": LABELS},
    "apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement": {
        "key": _KEY,
        "operator": one_of("In", "NotIn", "Exists", "DoesNotExist"),
    },
    "api.apps.v1.DeploymentSpec": {"replicas": between(0), "minReadySeconds": between(0)},
    "api.apps.v1.DeploymentStrategy": {"type": one_of("Recreate", "RollingUpdate")},
    "api.apps.v1.RollingUpdateDeployment": {
        "maxSurge": between(0) | spelled(r"\d+%", 5),
        "maxUnavailable": SHARE,
    },
    "api.apps.v1.StatefulSetSpec": {
        "replicas": between(0),
        "podManagementPolicy": one_of("OrderedReady", "Parallel"),
    },
    "api.apps.v1.StatefulSetUpdateStrategy": {"type": one_of("OnDelete", "RollingUpdate")},
    "api.autoscaling.v2.HorizontalPodAutoscalerSpec": {
        "minReplicas": between(1),
        "maxReplicas": between(1),
    },
    "api.autoscaling.v2.HPAScalingPolicy": {
        "type": one_of("Pods", "Percent"),
        "value": between(1),
        "periodSeconds": between(1, 1800),
    },
    "api.autoscaling.v2.HPAScalingRules": {
        "selectPolicy": one_of("Max", "Min", "Disabled"),
        "stabilizationWindowSeconds": between(0, 3600),
    },
    "api.autoscaling.v2.MetricSpec": {
        "type": one_of("ContainerResource", "External", "Object", "Pods", "Resource")
    },
    "api.autoscaling.v2.MetricTarget": {"type": one_of("Utilization", "Value", "AverageValue")},
    "api.batch.v1.CronJobSpec": {
        "schedule": {"format": "cron schedule"},
        "timeZone": {"format": "time zone"},
        "concurrencyPolicy": one_of("Allow", "Forbid", "Replace"),
        "successfulJobsHistoryLimit": between(0),
        "failedJobsHistoryLimit": between(0),
        "startingDeadlineSeconds": between(0),
    },
    "api.batch.v1.JobSpec": {
        "activeDeadlineSeconds": between(1),
        "backoffLimit": between(0),
        "completions": between(0),
        "parallelism": between(0),
        "completionMode": one_of("Indexed", "NonIndexed"),
        "ttlSecondsAfterFinished": between(0),
    },
    "api.core.v1.PodSpec": {
        "restartPolicy": one_of("Always", "Never", "OnFailure"),
        "dnsPolicy": one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        "nodeSelector": LABELS,
        "terminationGracePeriodSeconds": between(0),
    },
    "api.core.v1.PodSecurityContext": {
        "fsGroupChangePolicy": one_of("Always", "OnRootMismatch"),
        "runAsUser": between(0, 2**31 - 1),
        "runAsGroup": between(0, 2**31 - 1),
        "fsGroup": between(0, 2**31 - 1),
    },
    "api.core.v1.SeccompProfile": {"type": one_of("RuntimeDefault", "Localhost", "Unconfined")},
    "api.core.v1.Container": {
        "name": LABEL,
        "image": spelled(
            r"[a-z0-9][a-z0-9._/-]*(:\d+/[a-z0-9._/-]+)?(:[\w.-]+)?(@sha256:\w+)?", 512
        ),
        "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
        "restartPolicy": one_of("Always", "Never", "OnFailure"),
        "terminationMessagePolicy": one_of("File", "FallbackToLogsOnError"),
    },
    "api.core.v1.ContainerPort": {
        "name": PORT_NAME,
        "containerPort": PORT,
        "hostPort": PORT,
        "protocol": PROTOCOL,
    },
    "api.core.v1.EnvVar": {"name": spelled("[ -<>-~]+", 253)},
    "api.core.v1.HTTPGetAction": {
        "port": PORT_OR_NAME,
        "path": {"pattern": "^/"},
        "scheme": one_of("HTTP", "HTTPS"),
    },
    "api.core.v1.TCPSocketAction": {"port": PORT_OR_NAME},
    "api.core.v1.Probe": {
        "initialDelaySeconds": between(0),
        "periodSeconds": between(1),
        "timeoutSeconds": between(1),
        "successThreshold": between(1),
        "failureThreshold": between(1),
    },
    "api.core.v1.Toleration": {
        "key": _KEY,
        "operator": one_of("Equal", "Exists"),
        "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
    },
    "api.core.v1.TopologySpreadConstraint": {
        "maxSkew": between(1),
        "minDomains": between(1),
        "topologyKey": _KEY,
        "whenUnsatisfiable": one_of("DoNotSchedule", "ScheduleAnyway"),
    },
    "api.core.v1.Volume": {"name": LABEL},
    "api.core.v1.VolumeMount": {"mountPath": spelled("/[^:]*", 4096)},
    "api.core.v1.EmptyDirVolumeSource": {"medium": spelled(r"(Memory|HugePages.*)?", 63)},
    "api.core.v1.ConfigMapVolumeSource": {"defaultMode": between(0, 0o777)},
    "api.core.v1.SecretVolumeSource": {"defaultMode": between(0, 0o777)},
    "api.core.v1.PersistentVolumeClaimSpec": {"accessModes": {"items": MODES}},
    "api.core.v1.ServiceSpec": {
        "type": one_of("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
        "externalName": SUBDOMAIN,
        "selector": LABELS,
        "sessionAffinity": one_of("ClientIP", "None"),
    },
    "api.core.v1.ServicePort": {
        "name": LABEL,
        "port": PORT,
        "nodePort": PORT,
        "targetPort": PORT_OR_NAME,
        "protocol": PROTOCOL,
    },
    "api.networking.v1.NetworkPolicySpec": {"policyTypes": {"items": one_of("Ingress", "Egress")}},
    "api.networking.v1.NetworkPolicyPort": {"port": PORT_OR_NAME, "protocol": PROTOCOL},
    "api.networking.v1.IPBlock": {
        "cidr": {"format": "CIDR"},
        "except": {"items": {"format": "CIDR"}},
    },
    "api.policy.v1.PodDisruptionBudgetSpec": {
        "minAvailable": SHARE,
        "maxUnavailable": SHARE,
        "unhealthyPodEvictionPolicy": one_of("AlwaysAllow", "IfHealthyBudget"),
    },
}


def named(kind: str) -> Schema:
    """That an object of this kind has a name, of the sort that the kind asks for."""
    name = OBJECT_NAMES.get(kind, SUBDOMAIN)
    return {"properties": {"metadata": {"required": ["name"], "properties": {"name": name}}}}


def sharpen(definitions: dict[str, Schema]) -> None:
    """Add RULES to the definitions of Kubernetes' schemas. Raises KeyError for an unknown field."""
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["format"] = "quantity"
    for name, fields in RULES.items():
        properties = definitions[f"io.k8s.{name}"]["properties"]
        for field, rule in fields.items():
            properties[field] = {"allOf": [properties[field], rule]}
