"""What changed between two versions of a document, part by part, for who reads what somebody else
did. Members of a list that have an id are compared with the member of the same id."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_IDS = ("id", "offer_id", "key")
_ORDER = "order"


@dataclass(frozen=True)
class Change:
    """`path` from the top, such as `rules[summer].priority`; a side that has nothing there is
    None."""

    path: str
    before: Any
    after: Any


def differences(before: str | None, after: str) -> list[Change]:
    """The changes from one JSON text to another, in the order of the paths' first mention; `before`
    None: everything is new."""
    held = {} if before is None else json.loads(before)
    return list(_compared("", held, json.loads(after)))


def _compared(path: str, before: Any, after: Any) -> Iterator[Change]:
    if _text(before) == _text(after):  # true is not 1
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys((*before, *after)):
            below = f"{path}.{name}" if path else name
            yield from _compared(below, before.get(name), after.get(name))
        return
    key = _id_of(before or (), after or ())
    if key is not None:
        held, new = ({one[key]: one for one in side or ()} for side in (before, after))
        for name in dict.fromkeys((*held, *new)):
            yield from _compared(f"{path}[{name}]", held.get(name), new.get(name))
        if [one for one in held if one in new] != [one for one in new if one in held]:
            yield Change(f"{path}.{_ORDER}", list(held), list(new))
        return
    yield Change(path, before, after)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _id_of(before: Any, after: Any) -> str | None:
    """The name of the field by which the members of both lists are told apart."""
    if not (isinstance(before, list | tuple) and isinstance(after, list | tuple)):
        return None
    members = [*before, *after]
    for key in _IDS:
        if members and all(isinstance(one, Mapping) and key in one for one in members):
            ids = [[one[key] for one in side] for side in (before, after)]
            if all(_all_different(side) for side in ids):
                return key
    return None


def _all_different(ids: list[Any]) -> bool:
    return all(isinstance(one, str) for one in ids) and len(set(ids)) == len(ids)
