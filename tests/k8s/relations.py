"""What must fit together within one object: requests and limits, mounts and volumes, ports and
their names, least and most. Each check yields what is wrong, a line each; the object's shape must
have been judged before.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal

from tests.k8s.formats import amount
from tests.k8s.objects import Object, Template, chooses, containers, ports

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")
SCALING = {  # kind: its fields for the fewest and the most replicas
    "HorizontalPodAutoscaler": ("minReplicas", "maxReplicas"),
    "ScaledObject": ("minReplicaCount", "maxReplicaCount"),
}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def of_object(each: Object) -> Iterator[str]:
    """What is wrong with one object, the pods that it makes left out."""
    kind, spec = each["kind"], each.get("spec", {})
    if kind in SCALING:
        fewest, most = (spec.get(field, 1) for field in SCALING[kind])
        if fewest > most:
            yield f"{SCALING[kind][0]} {fewest} is above {SCALING[kind][1]} {most}"
    elif kind == "PodDisruptionBudget":
        if ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield "takes one of minAvailable and maxUnavailable"
    elif kind == "Deployment":
        rolling = spec.get("strategy", {}).get("rollingUpdate", {})
        if {str(rolling.get(field)) for field in ("maxSurge", "maxUnavailable")} <= {"0", "0%"}:
            yield "with maxSurge 0 and maxUnavailable 0 no pod can be replaced"
    elif kind == "Service":
        names = [port.get("name", "") for port in spec.get("ports", [])]
        yield from _twice("port", names)
        if len(names) > 1 and "" in names:
            yield "of several ports each needs a name"
    elif kind == "ServiceMonitor":
        for endpoint in spec["endpoints"]:
            every, at_most = endpoint.get("interval"), endpoint.get("scrapeTimeout")
            if every and at_most and seconds(at_most) > seconds(every):
                yield f"scrapeTimeout {at_most} is above interval {every}"


def of_template(template: Template) -> Iterator[str]:
    """What is wrong with the pods that an object makes."""
    pod, spec = template.pod, template.owner["spec"]
    policy = pod.get("restartPolicy", "Always")
    if policy not in template.restart:
        yield f"restartPolicy {policy} is none of {', '.join(template.restart)}"
    if template.owner["kind"] in ("Deployment", "StatefulSet", "DaemonSet") and not chooses(
        spec["selector"], template.labels
    ):
        yield "its selector does not choose its own pods"
    for spread in pod.get("topologySpreadConstraints", []):
        if not chooses(spread.get("labelSelector", {}), template.labels):
            yield "topologySpreadConstraints count other pods than its own"
        if "minDomains" in spread and spread["whenUnsatisfiable"] != "DoNotSchedule":
            yield "minDomains needs whenUnsatisfiable DoNotSchedule"
    for volume in pod.get("volumes", []):
        if len(volume.keys() - {"name"}) != 1:
            yield f"volume {volume['name']} is not of exactly one sort"
    volumes = [each["name"] for each in pod.get("volumes", [])]
    volumes += [claim["metadata"]["name"] for claim in template.claims()]
    yield from _twice("volume", volumes)
    yield from _twice("container", [container["name"] for container in containers(pod)])
    named = [
        port["name"] for one in containers(pod) for port in one.get("ports", []) if "name" in port
    ]
    yield from _twice("port", named)
    for container in containers(pod):
        for said in (*_of_container(container, volumes), *_of_resources(container)):
            yield f"{container['name']}: {said}"


def _of_container(container: Object, volumes: list[str]) -> Iterator[str]:
    mounts = container.get("volumeMounts", [])
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume"
    yield from _twice("mountPath", [mount["mountPath"] for mount in mounts])
    yield from _twice("variable", [variable["name"] for variable in container.get("env", [])])
    held = ports({"containers": [container]})
    asked = {probe: container[probe] for probe in PROBES if probe in container}
    for probe, content in asked.items():
        if len(content.keys() & set(HANDLERS)) != 1:
            yield f"{probe} takes one of {', '.join(HANDLERS)}"
        if probe != "readinessProbe" and content.get("successThreshold", 1) != 1:
            yield f"{probe} takes no successThreshold but 1"
    for where, content in (asked | container.get("lifecycle", {})).items():
        for handler in ("httpGet", "tcpSocket"):
            port = content.get(handler, {}).get("port")
            if isinstance(port, str) and port not in held:
                yield f"{where} asks port {port}, which it has not"


def _of_resources(container: Object) -> Iterator[str]:
    resources = container.get("resources", {})
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, quantity in {**limits, **requests}.items():
        # Thousandths of a core are the finest there is; of everything else there are no parts.
        finest = Decimal("0.001") if name == "cpu" else Decimal(1)
        if amount(quantity) % finest:
            yield f"{name} {quantity} is finer than {finest}"
    for name, quantity in requests.items():
        if name in limits and amount(quantity) > amount(limits[name]):
            yield f"requests {name} {quantity}, above its limit {limits[name]}"
    for name in limits.keys() | requests.keys():
        limit = amount(limits.get(name, 0))
        if "/" in name and amount(requests.get(name, limit)) != limit:
            yield f"{name} needs a limit, and a request only of the same"


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what} {name} twice"


def seconds(duration: str) -> float:
    """A duration as Prometheus writes it, such as 1m30s."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", duration)
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))
