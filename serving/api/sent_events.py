"""The events of one request, each read for itself. The body is only taken apart at first; what does
not fit the present version as it stands is then read with care, to say what is wrong with it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Required, TypedDict
from uuid import UUID

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from contract.event_versions import NotInVersionError, UnknownVersionError, upgraded
from contract.events import SCHEMA_VERSION, ClientEvent
from serving.api.problems import ApiProblem, invalid, without_card

MOST_EVENTS = 500
_EVENTS = TypeAdapter(list[ClientEvent])
# What only later versions know, and an event that does not say its version must not have.
_SINCE_1, _ITEM_SINCE_1 = frozenset({"percent_scrolled", "feedback"}), "item_category"
_SINCE_2: Final = "feedback"
Status = Literal["accepted", "duplicate", "rejected"]
Reason = Literal["bot", "internal", "invalid", "version", "forbidden", "no_consent"]


class Result(TypedDict, total=False):
    """An `EventResult` as it is written; a model for each of 500 events would cost as much as
    validating them."""

    event_id: str | UUID
    status: Required[Status]
    reason: Reason
    detail: str | None


class _Apart(msgspec.Struct, forbid_unknown_fields=True):
    """A batch taken apart; nothing in an event is looked at yet."""

    events: list[msgspec.Raw]


_APART = msgspec.json.Decoder(_Apart)


def listed(body: bytes) -> list[Any]:
    """The raw events of a request, each as its bytes or, where a body is not simply right, parsed.
    Raises a 400 or 422 problem about the whole of it."""
    try:
        events: list[Any] = _APART.decode(body).events
    except (msgspec.MsgspecError, ValueError, RecursionError):
        events = _parsed_events(body)  # which says what is wrong, and refuses less
    if not 1 <= len(events) <= MOST_EVENTS:
        raise ApiProblem(422, f"events: send 1 to {MOST_EVENTS} events, not {len(events)}.")
    return events


def _parsed_events(body: bytes) -> list[Any]:
    sent = _parsed(body)
    if not isinstance(sent, dict) or not isinstance(sent.get("events"), list):
        raise ApiProblem(422, 'events: send {"events": [...]}.')
    if len(sent) > 1:
        unknown = next(name for name in sent if name != "events")
        raise ApiProblem(422, f"{without_card(_ascii(unknown)[:64])}: unknown field")
    events: list[Any] = sent["events"]
    return events


def _parsed(body: Any) -> Any:
    """JSON as Python has it; what is parsed already is given back. Raises a 400 problem."""
    if not isinstance(body, bytes | msgspec.Raw):
        return body
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise ApiProblem(400, f"The body is not JSON: {_ascii(str(error))}.") from None


def rejected(event_id: str | UUID | None, reason: Reason, detail: str) -> Result:
    """The result of an event that is not taken."""
    told: Result = {"status": "rejected", "reason": reason, "detail": detail}
    return told if event_id is None else {"event_id": event_id, **told}


def id_of(raw: Any) -> str | None:
    """What the raw event says its id is, as far as that can be told again."""
    raw = _parsed(raw)
    named = raw.get("event_id") if isinstance(raw, dict) else None
    return named[:64] if isinstance(named, str) else None


def read_some(some: Sequence[Any]) -> list[ClientEvent | Result]:
    """The events in `some`, or the result that refuses one. All of them are validated at once, as
    they came if they are of this version, and one by one only where that fails."""
    if all(isinstance(raw, msgspec.Raw) for raw in some):
        with suppress(ValidationError):
            read = _validated(b"[" + b",".join(some) + b"]")
            if len(read) == len(some) and all(map(_of_this_version, read)):
                return [*read]
    known = [_upgraded(_parsed(raw)) for raw in some]
    right = [one for one in known if not isinstance(one, _Refused)]
    try:
        valid = _validated(to_json(right))
    except ValidationError:
        events: Iterator[ClientEvent | Result] = map(_read_one, right)
    else:
        events = iter(valid)
    return [one.result if isinstance(one, _Refused) else next(events) for one in known]


def _validated(events: bytes) -> list[ClientEvent]:
    # In JSON's strict mode, where times and ids are strings but numbers are not.
    return _EVENTS.validate_json(events, strict=True)


def _of_this_version(event: ClientEvent) -> bool:
    """Whether `event`, which fits the present version, is one of it, or is alike in both: one that
    does not say its version is of the first."""
    said = event.model_fields_set
    if event.schema_version < SCHEMA_VERSION:
        return _SINCE_2 not in said
    if "schema_version" in said:
        return True
    for item in event.items:
        if _ITEM_SINCE_1 in item.model_fields_set:
            return False
    return said.isdisjoint(_SINCE_1)


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the place of an event of a version that can not be read."""

    result: Result


def _upgraded(raw: Any) -> Any:
    """`raw` as one of the present version; what is no object at all is left to the validation."""
    if not isinstance(raw, dict):
        return raw
    try:
        return upgraded(raw)
    except UnknownVersionError as error:  # worth keeping: a later gateway may read it
        return _Refused(rejected(id_of(raw), "version", str(error)))
    except NotInVersionError as error:
        return _Refused(rejected(id_of(raw), "invalid", str(error)))


def _read_one(raw: Any) -> ClientEvent | Result:
    try:
        return ClientEvent.model_validate_json(to_json(raw), strict=True)
    except ValidationError as error:
        detail = invalid(error).problem.detail
        return rejected(id_of(raw), "invalid", detail)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
