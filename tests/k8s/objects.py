"""The objects of a render, and how to find pods, containers and what a selector chooses in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
Object = dict[str, Any]
Objects = list[Object] | tuple[Object, ...]


class Template(NamedTuple):
    """What makes pods: its name, the object it stands in, and the pods' metadata and spec."""

    named: str  # "Kind name"
    owner: Object
    labels: dict[str, str]
    pod: Object
    restart: tuple[str, ...]  # the restart policies that its kind allows

    def claims(self) -> list[Object]:
        """The claims that a StatefulSet makes for each of its pods."""
        held: list[Object] = self.owner["spec"].get("volumeClaimTemplates", [])
        return held


def templates(objects: Objects) -> Iterator[Template]:
    """Everything that makes pods."""
    for each in objects:
        kind, spec = each["kind"], each.get("spec", {})
        always, ends = ("Always",), ("Never", "OnFailure")
        made: list[tuple[Object, tuple[str, ...]]] = []
        if kind in ("Deployment", "StatefulSet", "DaemonSet"):
            made = [(spec["template"], always)]
        elif kind == "Job":
            made = [(spec["template"], ends)]
        elif kind == "CronJob":
            made = [(spec["jobTemplate"]["spec"]["template"], ends)]
        elif kind == "JobSet":
            made = [(job["template"]["spec"]["template"], ends) for job in spec["replicatedJobs"]]
        elif kind == "Pod":
            made = [(each, always + ends)]
        for template, restart in made:
            labels = template.get("metadata", {}).get("labels", {})
            yield Template(
                f"{kind} {each['metadata']['name']}", each, labels, template["spec"], restart
            )


def pods(objects: Objects) -> Iterator[tuple[str, Object]]:
    """The pod specification, by "Kind name", of everything that makes pods."""
    for template in templates(objects):
        yield template.named, template.pod


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, those that run first among them."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def ports(pod: Object) -> dict[str, int]:
    """The ports of a pod that have a name."""
    return {
        port["name"]: port["containerPort"]
        for container in containers(pod)
        for port in container.get("ports", [])
        if "name" in port
    }


def chooses(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector chooses an object with these labels. The empty one chooses all."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for asked in selector.get("matchExpressions", []):
        key, operator = asked["key"], asked["operator"]
        if operator in ("Exists", "DoesNotExist"):
            met = (key in labels) == (operator == "Exists")
        else:
            met = (labels.get(key) in asked["values"]) == (operator == "In")
        if not met:
            return False
    return True
