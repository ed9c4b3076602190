"""Reading events of every schema version: each older one is brought up step by step, so that the
rest of the product knows the present version alone.

A version's step never changes once a later version exists; `tests/golden/events_v*.jsonl` hold
events of each version as they were written.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from contract.events import SCHEMA_VERSION, Event

# What an envelope that does not say its version is: the first clients did not.
UNSAID: Final = 1


class UnknownVersionError(ValueError):
    """The version is none that can be read here."""


class NotInVersionError(ValueError):
    """The event has a field that its own version does not know."""


def _from_1(event: dict[str, Any]) -> dict[str, Any]:
    """Version 2 added `percent_scrolled` and `item_category`, which version 1 does not know."""
    if "percent_scrolled" in event:
        raise NotInVersionError("percent_scrolled: unknown in schema version 1")
    items = event.get("items")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and "item_category" in item:
            raise NotInVersionError("items.item_category: unknown in schema version 1")
    return event


def _from_2(event: dict[str, Any]) -> dict[str, Any]:
    """Version 3 added `feedback`: an event of that name said nothing of what kind it was."""
    if "feedback" in event:
        raise NotInVersionError("feedback: unknown before schema version 3")
    return event | {"feedback": None} if event.get("event_name") == "feedback" else event


# By the version that they start from, each to the next one.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
_PRESENT = f'"schema_version":{SCHEMA_VERSION}'
_PRESENT_BYTES = _PRESENT.encode()
assert set(_STEPS) == set(range(1, SCHEMA_VERSION))


def upgraded(event: dict[str, Any]) -> dict[str, Any]:
    """The JSON object `event`, of any version so far, as one of `SCHEMA_VERSION`; it is not
    validated otherwise.

    Raises UnknownVersionError and NotInVersionError, whose messages repeat nothing of the event.
    """
    said = event.get("schema_version", UNSAID)
    if type(said) is not int or not 1 <= said <= SCHEMA_VERSION:
        raise UnknownVersionError(f"schema_version: 1 to {SCHEMA_VERSION} are read here")
    for version in range(said, SCHEMA_VERSION):
        event = _STEPS[version](event)
    return event | {"schema_version": SCHEMA_VERSION}


def read_stored(body: str | bytes) -> Event:
    """A stored event of any version. Raises ValueError when it is none."""
    if _PRESENT in body if isinstance(body, str) else _PRESENT_BYTES in body:
        with suppress(ValidationError):  # what looks so may stand in a text of an older event
            return Event.model_validate_json(body)
    return Event.model_validate(upgraded(from_json(body)))
