import json
import random
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.event_versions import upgraded
from contract.events import (
    EVENT_NAMES,
    EVENT_TYPE,
    FEEDBACK_CODE,
    NEEDS_ITEMS,
    SERVER_ONLY,
    ClientEvent,
    Event,
    EventItem,
    as_stored,
    honoured_time,
    key_of,
    looks_like_card,
)
from tests.contract.examples import event, logs, many, on_day

SENT: dict[str, Any] = {
    "event_id": "00000000-0000-0000-0000-000000000001",
    "event_name": "view_item",
    "occurred_at": "2017-11-20T08:00:00Z",
    "session_id": "session-1",
    "visitor_id": "visitor-1",
    "items": [{"item_id": "milk"}],
}


def refusal(**changed: Any) -> list[str]:
    """Where the event that a caller sends is wrong, and what about it."""
    with pytest.raises(ValidationError) as error:
        ClientEvent.model_validate_json(json.dumps(SENT | changed))
    return [
        ".".join(map(str, problem["loc"])) + ": " + problem["msg"]
        for problem in error.value.errors()
    ]


def test_smallest_event_is_accepted() -> None:
    told = ClientEvent.model_validate_json(json.dumps(SENT))
    assert told.items == (EventItem(item_id="milk", quantity=1),)
    assert told.occurred_at == datetime(2017, 11, 20, 8, tzinfo=UTC)


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_what_each_event_needs(name: str) -> None:
    bare = SENT | {"event_name": name, "items": []}
    missing = []
    if name in NEEDS_ITEMS:
        missing.append("items")
    elif name == "search":
        missing.append("search_term")
    elif name == "feedback":
        missing.append("feedback")
    if missing:
        assert f"{name} needs" in refusal(**bare)[0]
    complete = {"items": SENT["items"], "transaction_id": "t-1", "search_term": "oat milk"}
    complete |= {"feedback": "hidden"} if name == "feedback" else {}
    assert ClientEvent.model_validate_json(json.dumps(bare | complete)).event_name == name


@pytest.mark.parametrize("kind", FEEDBACK_CODE)
def test_feedback_is_of_items_and_of_a_known_kind(kind: str) -> None:
    said = {"event_name": "feedback", "feedback": kind}
    assert ClientEvent.model_validate_json(json.dumps(SENT | said)).feedback == kind
    assert "feedback" in refusal(**said, items=[])[0]
    assert "feedback is what" in refusal(event_name="click", feedback=kind)[0]
    assert refusal(event_name="feedback", feedback="boring")[0].startswith("feedback: Input")


@pytest.mark.parametrize("version", [1, 2])
def test_feedback_of_before_its_kinds_is_still_taken(version: int) -> None:
    older = upgraded(SENT | {"event_name": "feedback", "items": [], "schema_version": version})
    assert ClientEvent.model_validate_json(json.dumps(older)).feedback is None


@pytest.mark.parametrize("name", ["purchase", "refund"])
def test_money_events_need_a_transaction(name: str) -> None:
    assert f"{name} needs a transaction_id" in refusal(event_name=name)[0]
    assert name in SERVER_ONLY


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"visitor": "v"}, "visitor: Extra inputs"),
        ({"items": [{"item_id": "milk", "sku": 1}]}, "items.0.sku: Extra inputs"),
        ({"context": {"hour": 3}}, "context.hour: Extra inputs"),
        ({"consent": {"everything": True}}, "consent.everything.[key]: Input should be"),
        ({"event_name": "buy"}, "event_name: Input should be"),
        ({"event_id": "1"}, "event_id: Input should be a valid UUID"),
        ({"occurred_at": "2017-11-20T08:00:00"}, "occurred_at: Input should have timezone"),
        ({"occurred_at": "2017-11-20"}, "occurred_at: Input should have timezone"),
        ({"occurred_at": "yesterday"}, "occurred_at: Input should be a valid datetime"),
        ({"items": [{"item_id": ""}]}, "items.0.item_id: String should have at least 1"),
        ({"items": [{"item_id": "a", "quantity": 0}]}, "items.0.quantity: Input should be"),
        ({"items": [{"item_id": "a", "price": -1}]}, "items.0.price: Input should be"),
        ({"items": [{"item_id": "a", "price": 1.99}]}, "items.0.price: Input should be"),
        ({"items": [{"item_id": "a"}] * 501}, "items: Tuple should have at most 500"),
        ({"value": -5}, "value: Input should be greater"),
        ({"currency": "US$"}, "currency: String should match"),
        ({"currency": "USD\n"}, "currency: String should match"),
        ({"context": {"country": "usa"}}, "context.country: String should match"),
        ({"context": {"region": "4111111111111111"}}, "context.region: Value error, looks like"),
        ({"search_term": "w" * 201}, "search_term: String should have at most 200"),
        ({"visitor_id": ""}, "visitor_id: String should have at least 1"),
        ({"session_id": "s" * 129}, "session_id: String should have at most 128"),
        ({"engagement_ms": 86_400_001}, "engagement_ms: Input should be less"),
    ],
)
def test_bad_field_is_named(changed: dict[str, Any], where: str) -> None:
    (told,) = refusal(**changed)
    assert told.startswith(where)


@pytest.mark.parametrize(
    "field",
    [
        "coupon",
        "payment_type",
        "shipping_tier",
        "transaction_id",
        "search_term",
        "session_id",
        "attribution_token",
    ],
)
def test_no_free_text_takes_a_card_and_no_message_repeats_it(field: str) -> None:
    (told,) = refusal(**{field: "my card is 4111 1111 1111 1111"})
    assert told.startswith(f"{field}: Value error, looks like a payment card number")
    assert "4111" not in told


def test_item_ids_may_be_numbers_of_any_kind() -> None:
    # A European Article Number that passes Luhn, and digits like those of a card.
    numbers = ["5901234123457", "4111111111111111"]
    told = ClientEvent.model_validate(SENT | {"items": [{"item_id": n} for n in numbers]})
    assert [item.item_id for item in told.items] == numbers


CARDS = {
    "Visa": "4111111111111111",
    "Visa, 13 digits": "4222222222222",
    "Visa, 19 digits": "4000000000000000006",
    "Mastercard": "5555555555554444",
    "Mastercard, 2 series": "2223003122003222",
    "American Express": "378282246310005",
    "Diners Club": "30569309025904",
    "Diners Club, 36": "36227206271667",
    "Discover": "6011111111111117",
    "JCB": "3566002020360505",
    "UnionPay": "6200000000000005",
    "Maestro": "6759649826438453",
}


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS.keys())
def test_cards_are_seen_however_they_are_written(number: str) -> None:
    groups = [number[at : at + 4] for at in range(0, len(number), 4)]
    separators = ("", " ", "-", "  ", ".", " - ", "\u2013", "_", "/", ",", ", ", "   ", "\u2011")
    unseen = (
        "\u200b",
        "\u00ad",
        "\u2060",
        " \u200b \u200d ",
        "\u00a0",
        "\u3000",
        "\ufe0f",
        "\u20e3",
    )
    for separator in (*separators, *unseen):
        assert looks_like_card(separator.join(groups)), ascii(separator)
    for before, after in (("order 7 ", ""), ("", " 12/27"), ("12 ", " 123"), ("n\u00ba", "x")):
        assert looks_like_card(f"{before}{number}{after}")
    for zero in "\uff10\u0660\u0966\U0001d7ce":
        assert looks_like_card("".join(chr(ord(zero) + int(digit)) for digit in number))
    circled = "\u24ea\u2460\u2461\u2462\u2463\u2464\u2465\u2466\u2467\u2468"
    assert looks_like_card("".join(circled[int(digit)] for digit in number))


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS.keys())
def test_one_wrong_digit_is_no_card(number: str) -> None:
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert not looks_like_card(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oat milk 1 l",
        "5901234123457",  # an article number of 13 digits that passes Luhn
        "1511136000000",  # milliseconds since 1970
        "41111111111111111111",  # 20 digits
        "4111 apples, 1111 pears, 1111 plums and 1111 nuts",
        "+49 30 901820 1234",
        "550e8400-e29b-41d4-a716-446655440000",
        "2017-11-20 12:30:45.123",
        "2017/11/000123456",
        "PO_2017_000_123_456",
        "4111....1111....1111....1111",  # nobody writes one so
    ],
)
def test_other_numbers_are_no_cards(text: str) -> None:
    assert not looks_like_card(text)


def test_order_numbers_are_refused_no_more_often_than_chance() -> None:
    """Of 16 digits in a row every tenth passes Luhn, of those that begin as a card does."""
    draw = random.Random(3)
    forms = ("{:04d}-{:06d}-{:06d}", "{:04d}/{:06d}/{:06d}", "{:04d}_{:06d}_{:06d}")
    drawn = [
        form.format(draw.randrange(2015, 2030), draw.randrange(10**6), draw.randrange(10**6))
        for form in forms
        for _ in range(2_000)
    ]
    assert not any(map(looks_like_card, drawn))  # no card begins as a year does


@pytest.mark.parametrize("text", ["4 1", "4.", "1", "1___", "\u200b4", "41111 "])
def test_a_long_text_costs_in_proportion(text: str) -> None:
    def seconds(length: int) -> float:
        long = text * (length // len(text))
        began = time.process_time()
        looks_like_card(long)
        return time.process_time() - began

    seconds(5_000)
    assert (
        min(seconds(40_000) for _ in range(3)) < 40 * min(seconds(5_000) for _ in range(3)) + 0.05
    )


def test_stored_search_may_have_lost_its_words() -> None:
    assert event(1, "search", items=()).search_term is None


@many
@given(logs())
def test_stored_events_survive_json(log: list[Event]) -> None:
    for one in log:
        stored = one.model_dump_json(exclude_none=True)
        assert Event.model_validate_json(stored) == one


def test_events_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        event(1).session_id = "other"


def test_type_codes_begin_after_padding_and_fit_a_byte() -> None:
    assert sorted(EVENT_TYPE.values()) == list(range(1, len(EVENT_NAMES) + 1))
    assert len(EVENT_NAMES) < 256


def test_key_is_the_first_eight_bytes_of_blake2b() -> None:
    # BLAKE2b-64 of the empty string is e4a6a0577479b2b4; read from its low end.
    assert key_of("") == 0xB4B2797457A0A6E4


@many
@given(st.text(max_size=40))
def test_keys_are_unsigned_64_bit(text: str) -> None:
    assert 0 <= key_of(text) < 2**64


def test_future_does_not_count() -> None:
    assert honoured_time(on_day(1), on_day(2)) == on_day(1)
    assert honoured_time(on_day(3), on_day(2)) == on_day(2)


def test_the_stored_form_is_a_whole_event() -> None:
    sent = ClientEvent.model_validate_json(json.dumps(SENT | {"consent": {"analytics": True}}))
    changed: dict[str, Any] = {
        "received_at": sent.occurred_at,
        "subject_id": UUID(int=7),
        "purposes": ("offers",),
    }
    stored = as_stored(sent, **changed)
    written = sent.model_dump(exclude={"visitor_id", "user_id", "consent", "gpc"})
    validated = Event.model_validate(written | changed)
    assert stored == validated
    assert Event.model_validate_json(stored.model_dump_json()) == validated
    assert stored.model_copy(update={"coupon": "x"}).coupon == "x"
    with pytest.raises(ValidationError):
        stored.coupon = "x"
