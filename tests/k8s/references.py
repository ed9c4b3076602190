"""Whatever an object names is there: service accounts, settings, secrets, claims, the target of an
autoscaler, the ports of a Service, the pods of a selector. Each check yields what is missing.

Secrets are in no render: those are allowed that README.md's section Deploy has the reader create.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from tests.k8s.objects import ROOT, Object, Objects, Template, chooses, containers, ports, templates


class Cluster(NamedTuple):
    """What a reference may point to."""

    rendered: Objects  # its own render, in which selectors choose
    defined: Objects  # that and what was applied before
    made: tuple[Template, ...]  # what makes pods in its own render

    def find(self, kind: str, name: str) -> Object | None:
        """The object of this kind and name."""
        for each in self.defined:
            if (each["kind"], each["metadata"]["name"]) == (kind, name):
                return each
        return None

    def chosen(self, selector: Object) -> list[Template]:
        """What makes pods that a LabelSelector chooses."""
        return [template for template in self.made if chooses(selector, template.labels)]


def missing(objects: Objects, beside: Objects = ()) -> Iterator[str]:
    """Every reference that leads nowhere. `beside` are objects that were applied before."""
    cluster = Cluster(objects, (*objects, *beside), tuple(templates(objects)))
    for each in objects:
        for said in (*_of_namespace(each, cluster), *_of_kind(each, cluster)):
            yield f"{each['kind']} {each['metadata']['name']}: {said}"
    for template in cluster.made:
        for said in _of_pod(template, cluster):
            yield f"{template.named}: {said}"
    targets = [_target(each) for each in objects if "scaleTargetRef" in each.get("spec", {})]
    for kind, name in {target for target in targets if targets.count(target) > 1}:
        yield f"{kind} {name}: has two autoscalers"


@cache
def deploy_section() -> str:
    """README.md on how to deploy."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^## Deploy\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert found is not None, "README.md has no section Deploy"
    return found[1]


@cache
def secrets() -> dict[str, frozenset[str]]:
    """The secrets that a reader of README.md creates, each with its keys."""
    commands = deploy_section().replace("\\\n", " ").splitlines()
    found = [re.search(r"create secret generic (\S+)(.*)", command) for command in commands]
    return {
        one[1]: frozenset(re.findall(r"--from-literal=([\w.-]+)=", one[2])) for one in found if one
    }


def _of_namespace(each: Object, cluster: Cluster) -> Iterator[str]:
    namespace = each["metadata"].get("namespace")
    if namespace is not None and cluster.find("Namespace", namespace) is None:
        yield f"there is no namespace {namespace}"


def _of_kind(each: Object, cluster: Cluster) -> Iterator[str]:
    kind, spec = each["kind"], each.get("spec", {})
    if kind == "Service" and "selector" in spec:
        yield from _of_service(spec, cluster)
    elif kind == "PodDisruptionBudget":
        if (count := len(cluster.chosen(spec["selector"]))) != 1:
            yield f"its selector chooses the pods of {count} objects, not of one"
    elif kind == "NetworkPolicy":
        yield from _of_policy(spec, cluster)
    elif kind == "ServiceMonitor":
        yield from _of_monitor(spec, cluster)
    elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        target = cluster.find(*_target(each))
        version = spec["scaleTargetRef"].get("apiVersion", "apps/v1")
        if target is None or target["apiVersion"] != version:
            yield f"there is no {version} {' '.join(_target(each))} to scale"
        elif "replicas" in target["spec"]:
            yield f"{' '.join(_target(each))} sets replicas too"
    elif kind == "StatefulSet":
        service = cluster.find("Service", spec["serviceName"])
        if service is None or service["spec"].get("clusterIP") != "None":
            yield f"there is no headless Service {spec['serviceName']}"


def _target(each: Object) -> tuple[str, str]:
    target = each["spec"]["scaleTargetRef"]
    return target.get("kind", "Deployment"), target["name"]  # KEDA's default


def _of_service(spec: Object, cluster: Cluster) -> Iterator[str]:
    chosen = cluster.chosen({"matchLabels": spec["selector"]})
    if len(chosen) != 1:
        yield f"its selector chooses the pods of {len(chosen)} objects, not of one"
        return
    held = ports(chosen[0].pod)
    for port in spec["ports"]:
        target = port.get("targetPort", port["port"])
        if target not in held and target not in held.values():
            yield f"{chosen[0].named} has no port {target}"


def _of_monitor(spec: Object, cluster: Cluster) -> Iterator[str]:
    services = [
        each
        for each in cluster.rendered
        if each["kind"] == "Service"
        and chooses(spec["selector"], each["metadata"].get("labels", {}))
    ]
    if len(services) != 1:
        yield f"its selector chooses {len(services)} Services, not one"
        return
    held = {port.get("name") for port in services[0]["spec"]["ports"]}
    for endpoint in spec["endpoints"]:
        if "port" in endpoint and endpoint["port"] not in held:
            yield f"Service {services[0]['metadata']['name']} has no port {endpoint['port']}"


def _of_policy(spec: Object, cluster: Cluster) -> Iterator[str]:
    own = cluster.chosen(spec["podSelector"])
    if not own:
        yield "its podSelector chooses no pods"
    for direction, end in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            peers: list[Template] = []
            for peer in rule.get(end, []):
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    found = cluster.chosen(peer["podSelector"])
                    peers += found
                    if not found:
                        yield f"a podSelector of {direction} chooses no pods"
            receivers = own if direction == "ingress" else peers
            held = {name for template in receivers for name in ports(template.pod)}
            for port in rule.get("ports", []):
                if isinstance(port.get("port"), str) and port["port"] not in held:
                    yield f"no pod of {direction} has port {port['port']}"


def _of_pod(template: Template, cluster: Cluster) -> Iterator[str]:
    pod = template.pod
    account = pod.get("serviceAccountName")
    if account is not None and cluster.find("ServiceAccount", account) is None:
        yield f"there is no ServiceAccount {account}"
    for volume in pod.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            if "configMap" in source:
                keys = [item["key"] for item in source["configMap"].get("items", [])]
                yield from _of_settings(source["configMap"]["name"], keys, cluster)
            if "secret" in source:
                held = source["secret"]
                keys = [item["key"] for item in held.get("items", [])]
                yield from _of_secret(held.get("secretName") or held.get("name"), keys)
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and cluster.find("PersistentVolumeClaim", claim) is None:
            yield f"there is no PersistentVolumeClaim {claim}"
    for each in pod.get("imagePullSecrets", []):
        yield from _of_secret(each["name"], [])
    for container in containers(pod):
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "configMapKeyRef" in source:
                held = source["configMapKeyRef"]
                yield from _of_settings(held["name"], [held["key"]], cluster)
            if "secretKeyRef" in source:
                yield from _of_secret(
                    source["secretKeyRef"]["name"], [source["secretKeyRef"]["key"]]
                )
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield from _of_settings(source["configMapRef"]["name"], [], cluster)
            if "secretRef" in source:
                yield from _of_secret(source["secretRef"]["name"], [])


def _of_settings(name: str, keys: list[str], cluster: Cluster) -> Iterator[str]:
    found = cluster.find("ConfigMap", name)
    if found is None:
        yield f"there is no ConfigMap {name}"
        return
    held = {**found.get("data", {}), **found.get("binaryData", {})}
    yield from (f"ConfigMap {name} has no {key}" for key in keys if key not in held)


def _of_secret(name: str, keys: list[str]) -> Iterator[str]:
    held = secrets().get(name)
    if held is None:
        yield f"README.md creates no secret {name}"
        return
    yield from (f"README.md gives secret {name} no {key}" for key in keys if key not in held)
