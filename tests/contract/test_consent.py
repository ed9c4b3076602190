import hashlib
import hmac
from itertools import combinations, product

import pytest

from contract.consent import (
    NOTHING,
    PURPOSES,
    allows,
    in_effect,
    may_store_behaviour,
    pseudonymise,
    redact,
)
from contract.events import EventContext
from contract.keyed_hash import KeyedHash
from tests.contract.examples import event

SUBSETS = [frozenset(held) for size in range(4) for held in combinations(sorted(PURPOSES), size)]
SAID = [None, *SUBSETS]


def test_the_purposes() -> None:
    assert sorted(PURPOSES) == ["analytics", "offers", "personalization"]
    assert len(SUBSETS) == 2**3


@pytest.mark.parametrize(("stored", "requested", "gpc"), list(product(SAID, SAID, (False, True))))
def test_stored_and_requested_and_no_gpc(
    stored: frozenset[str] | None, requested: frozenset[str] | None, gpc: bool
) -> None:
    held = in_effect(stored, requested, gpc=gpc)
    for purpose in PURPOSES:
        said_at_all = stored is not None or requested is not None
        stored_says = stored is None or purpose in stored
        request_says = requested is None or purpose in requested
        assert (purpose in held) == (said_at_all and stored_says and request_says and not gpc)
    assert held <= PURPOSES


def test_unknown_purposes_are_never_in_effect() -> None:
    assert in_effect(None, ["everything", "offers"], gpc=False) == {"offers"}
    assert in_effect(["everything"], None, gpc=False) == NOTHING
    assert in_effect(["everything"], ["everything"], gpc=False) == NOTHING


@pytest.mark.parametrize("held", SUBSETS)
def test_behaviour_is_stored_under_analytics_or_personalization(held: frozenset[str]) -> None:
    assert may_store_behaviour(held) == bool(held & {"analytics", "personalization"})
    assert allows(held, "offers") == ("offers" in held)


@pytest.mark.parametrize("held", SUBSETS)
@pytest.mark.parametrize("context", [None, EventContext(country="US", region="OH")])
def test_redaction(held: frozenset[str], context: EventContext | None) -> None:
    told = event(1, "search", search_term="oat milk", context=context, purposes=())
    kept = redact(told, held)
    if held <= {"offers"}:
        assert kept is None
        return
    assert kept is not None
    assert kept.purposes == tuple(sorted(held))
    personal = "personalization" in held
    assert kept.search_term == ("oat milk" if personal else None)
    if context is not None:
        assert kept.context is not None
        assert kept.context.country == "US"
        assert kept.context.region == ("OH" if personal else None)
    hidden = {"purposes", "search_term", "context"}
    assert kept.model_dump(exclude=hidden) == told.model_dump(exclude=hidden)
    assert told.search_term == "oat milk"
    assert told.context == context


def test_pseudonym_is_an_hmac_of_kind_and_id() -> None:
    expected = hmac.new(b"key", b"visitor:anna", hashlib.sha256).hexdigest()
    assert pseudonymise("anna", "visitor", KeyedHash(b"key")) == expected
    others = {
        pseudonymise("anna", "user", KeyedHash(b"key")),
        pseudonymise("anna", "visitor", KeyedHash(b"other key")),
        pseudonymise("Anna", "visitor", KeyedHash(b"key")),
    }
    assert len(others | {expected}) == 4
