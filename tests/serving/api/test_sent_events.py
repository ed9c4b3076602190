"""A body that is taken apart gives the same events and refusals as one that is parsed first."""

import json
import random
from typing import Any

import pytest

from contract.events import ClientEvent
from serving.api import sent_events
from serving.api.problems import ApiProblem
from serving.api.sent_events import id_of, listed, read_some
from tests.contract.examples import PROVE
from tests.serving.conftest import event, purchase

BODIES = 20_000 if PROVE else 400
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 2.0, 1.5, 3, 10**40, "", "2", [], {}, "x" * 300),
    *("4111 1111 1111 1111", "\ud800", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00"),
    *("2017-11-20T11:00:00.5+01:00", "urn:uuid:b5a7c8d0-1111-4222-8333-123456789abc"),
    "B5A7C8D0-1111-4222-8333-123456789ABC",
)
MORE = (
    *("schema_version", "percent_scrolled", "gpc", "user_id", "value", "unheard_of", "context"),
    "feedback",
)
OF_ITEMS = ("item_category", "price", "quantity", "index", "item_id", "unheard_of")
BYTES = b'{}[],:"\\0e.-\x00\xff tn'


def spoilt(one: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """`one` with some of it left out, added or replaced."""
    for _ in range(chance.randrange(3)):
        name, what = chance.choice([*one, *MORE]), chance.random()
        if what < 0.2:
            one.pop(name, None)
        elif what < 0.6:
            one[name] = chance.choice(ODD)
        elif isinstance(one.get("items"), list) and one["items"]:
            one["items"] = [dict(one["items"][0], **{chance.choice(OF_ITEMS): chance.choice(ODD)})]
    if chance.random() < 0.3:
        one["schema_version"] = chance.choice((1, 2, 3, 3, 3.0, 4, 0, "3"))
    return one


def body_of(chance: random.Random) -> bytes:
    """A request, right or wrong in any of many ways."""
    made = (
        *(event(), purchase("item-1", "item-2"), event(event_name="page_view", items=[])),
        event(event_name="feedback", feedback="hidden", schema_version=3),
    )
    events = [dict(chance.choice(made)) for _ in range(chance.choice((1, 1, 2, 5, 40)))]
    events = [spoilt(one, chance) if chance.random() < 0.5 else one for one in events]
    whole: Any = {"events": events} | ({"more": 1} if chance.random() < 0.05 else {})
    if chance.random() < 0.03:
        whole = chance.choice((events, [], 5, None, {"events": 5}, {"events": []}, {}))
    text = json.dumps(whole, ensure_ascii=chance.random() < 0.5)
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        place, what = chance.randrange(len(body)), chance.random()
        if what < 0.4:
            body[place] = chance.randrange(256)
        elif what < 0.7 and len(body) > 1:
            del body[place]
        else:
            body.insert(place, chance.choice(BYTES))
    return bytes(body)


def answered(body: bytes) -> Any:
    """What becomes of the events of `body`; of a problem its status, and what it says unless the
    body is no JSON: where it breaks is then counted from another place."""
    try:
        sent = listed(body)
        read = read_some(sent)
        ids = list(map(id_of, sent))
    except ApiProblem as refused:
        problem = refused.problem
        return problem.status, None if problem.status == 400 else problem.detail
    # An event that is the same in two versions may be read as either; it is stored as the later.
    told = [
        one.model_dump(exclude={"schema_version"}) if isinstance(one, ClientEvent) else one
        for one in read
    ]
    return told, ids


class TakesNothingApart:
    """In the place of what takes bodies apart: so each is parsed as a whole."""

    def decode(self, body: bytes) -> None:
        raise ValueError


def test_taking_apart_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(11)
    bodies = [body_of(chance) for _ in range(BODIES)]
    quick = [answered(body) for body in bodies]
    monkeypatch.setattr(sent_events, "_APART", TakesNothingApart())
    assert [answered(body) for body in bodies] == quick
    kinds = {one[0] if isinstance(one[0], int) else "events" for one in quick}
    assert kinds == {"events", 400, 422}  # each was met


def test_what_is_right_is_not_parsed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [event(schema_version=3), event(schema_version=2), event(event_name="page_view")]
    body = json.dumps({"events": told})
    monkeypatch.setattr(sent_events, "from_json", None)
    assert all(isinstance(one, ClientEvent) for one in read_some(listed(body.encode())))
