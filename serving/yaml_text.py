"""Plain YAML, for what a person writes by hand: no tags, and no anchors, a few lines of which can
stand for gigabytes."""

from typing import Any

import yaml
from pydantic import BaseModel

from contract.errors import UserError


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors are not taken", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        named: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str):  # other keys are no names
                if key.value in named:
                    told = f"{key.value} stands twice"
                    raise yaml.MarkedYAMLError(problem=told, problem_mark=key.start_mark)
                named.add(key.value)
        return super().construct_mapping(node, deep)


# A date stays the text that it is: what it means is the model's to say.
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def yaml_body(text: str | bytes) -> Any:
    """What a YAML text holds, in plain values. Raises UserError with the place."""
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{place}{error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(str(error).splitlines()[0]) from None


def as_yaml(model: BaseModel) -> str:
    """`model` for a person to edit, without what is as it would be anyway."""
    body = _named(model, model.model_dump(mode="json", exclude_defaults=True))
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
    return text


def _named(model: BaseModel, body: dict[str, Any]) -> dict[str, Any]:
    """`body` with the `kind` of every part that has one, which is what it is told by."""
    for name, value in model:
        if isinstance(value, BaseModel) and name in body:
            _named(value, body[name])
        elif isinstance(value, tuple) and name in body:
            for one, said in zip(value, body[name], strict=True):
                if isinstance(one, BaseModel):
                    _named(one, said)
    if (kind := getattr(model, "kind", None)) is not None:
        body["kind"] = kind
    return body
