"""What shoppers do, in the words of GA4 e-commerce, and the envelope in which it is kept.

A caller sends a `ClientEvent` (raw ids); after consent and pseudonyms it is stored as an `Event`.
"""

import hashlib
import re
import unicodedata
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from contract.catalogue import Currency, ItemId, MinorUnits

Made = TypeVar("Made", bound=BaseModel)

# What is written today; `contract.event_versions` reads every older version. Version 2 came with
# `percent_scrolled`, version 3 with `feedback`.
SCHEMA_VERSION: Final = 3

EventName = Literal[
    "view_item_list",
    "view_item",
    "select_item",
    "search",
    "add_to_cart",
    "remove_from_cart",
    "view_cart",
    "begin_checkout",
    "add_shipping_info",
    "add_payment_info",
    "purchase",
    "refund",
    "view_promotion",
    "select_promotion",
    "page_view",
    "click",
    "hover",
    "scroll",
    "page_dwell",
    "feedback",
    "decision",
]
EVENT_NAMES: tuple[str, ...] = get_args(EventName)
# Code 0 is padding; the order is frozen because models learn these codes. Append only.
EVENT_TYPE: dict[str, int] = {name: code for code, name in enumerate(EVENT_NAMES, start=1)}

NEEDS_ITEMS = frozenset(
    {"view_item", "select_item", "add_to_cart", "remove_from_cart", "purchase", "hover"}
)
SERVER_ONLY = frozenset({"purchase", "refund", "decision"})

# What a shopper says of items: not to be suggested, taken off the page, brought back.
FeedbackKind = Literal["not_for_me", "hidden", "returned"]
# Code 0 is none; feature state holds these codes. Append only.
FEEDBACK_CODE: dict[str, int] = {
    kind: code for code, kind in enumerate(get_args(FeedbackKind), start=1)
}
# A page says what its shopper pressed; that goods came back only the shop knows.
FEEDBACK_OF_SERVERS = frozenset({"returned"})

RawId = Annotated[str, StringConstraints(min_length=1, max_length=256)]

# Groups of digits as cards are written down: 4111 1111 1111 1111. Whatever is neither letter nor
# digit may stand between two groups, a few of it.
_APART = r"[\W_]"
_DIGIT_GROUPS = re.compile(rf"\d+(?:{_APART}{{1,3}}\d+)*")
# Prefixes and lengths that are issued. Luhn alone would refuse every tenth 13-digit order number.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|3[47]\d{13}"  # American Express
    r"|3[0689]\d{12}"  # Diners Club
    r"|(?:2[2-7]|3[05689]|5\d|6\d)\d{14}"  # Mastercard, Diners Club, JCB, Discover, UnionPay
    r"|(?:35|5[0678]|6\d)\d{15,17}"  # JCB, Maestro, UnionPay
)
SHORTEST_CARD, _LONGEST_CARD = 13, 19
# What every card number has, and nearly no other text: enough digits that stand close together.
_MANY_DIGITS = re.compile(rf"(?:\d{_APART}{{0,3}}){{{SHORTEST_CARD}}}")
# Marks and controls that nobody sees: zero-width spaces, joiners, soft hyphens.
_UNSEEN = frozenset({"Cf", "Cc", "Mn", "Me"})


def looks_like_card(text: str) -> bool:
    """Whether `text` holds a payment card number: neighbouring groups of digits that together have
    an issued prefix and length and pass the Luhn check, whatever digits stand before or after."""
    if len(text) < SHORTEST_CARD:
        return False
    if not text.isascii() and sum(map(str.isnumeric, text)) * 2 >= SHORTEST_CARD:
        text = _as_it_reads(text)
    if _MANY_DIGITS.search(text) is None:
        return False
    for run in _DIGIT_GROUPS.findall(text):
        borders = list(accumulate(map(len, re.findall(r"\d+", run)), initial=0))
        if borders[-1] < SHORTEST_CARD:
            continue
        digits = [int(character) for character in run if character.isdecimal()]
        # Luhn doubles every second digit from the right. With running sums for both parities a
        # long text of digits costs next to nothing.
        sums = [_running_sums(digits, doubled) for doubled in (0, 1)]
        for place, start in enumerate(borders):
            for end in borders[place + 1 :]:
                if end - start > _LONGEST_CARD:
                    break
                total = sums[end % 2][end] - sums[end % 2][start]
                if total % 10 == 0 and _ISSUED.fullmatch("".join(map(str, digits[start:end]))):
                    return True
    return False


def _as_it_reads(text: str) -> str:
    """`text` with digits of every form as digits, and without what is not seen between them."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(one for one in plain if unicodedata.category(one) not in _UNSEEN)


def _running_sums(digits: list[int], doubled: int) -> list[int]:
    """Sums of the first 0, 1, 2, ... digits, those at odd (`doubled` 1) or even places doubled."""
    return list(
        accumulate(
            (
                sum(divmod(2 * digit, 10)) if place % 2 == doubled else digit
                for place, digit in enumerate(digits)
            ),
            initial=0,
        )
    )


def no_card(text: str) -> str:
    """`text`, for a field that people fill in. Raises ValueError when it holds a card number."""
    if len(text) >= SHORTEST_CARD and looks_like_card(text):
        raise ValueError("looks like a payment card number, which is never accepted")
    return text


Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(no_card)]
Note = Annotated[str, StringConstraints(max_length=500), AfterValidator(no_card)]
SessionId = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(no_card)]


_FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)


def _in_utc(moment: datetime) -> datetime:
    """`moment` in UTC: in other zones there are times near both ends of the calendar that nobody
    who reads the event later could convert."""
    try:
        converted = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no time that there is in UTC") from None
    if converted < _FIRST_MOMENT:
        raise ValueError("lies before 1970")
    return converted


SentMoment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class EventItem(BaseModel):
    """One line of an event: `price` per unit in minor units, `index` its place in a list. Where a
    caller does not say the `item_category`, the gateway adds that of its catalogue to views."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: ItemId
    quantity: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    price: MinorUnits | None = None
    index: Annotated[int, Field(ge=0, le=100_000)] | None = None
    item_category: Text | None = None


class EventContext(BaseModel):
    """Where and on what: `timezone` an IANA name, from which hour and weekday are derived; one that
    is not known here gives neither, and refuses nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["desktop", "mobile", "tablet", "other"] | None = None
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    region: (
        Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_card)]
        | None
    ) = None
    timezone: Annotated[str, StringConstraints(max_length=64), AfterValidator(no_card)] | None = (
        None
    )


class EventBody(BaseModel):
    """What every form of an event carries besides its envelope."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: UUID
    event_name: EventName
    occurred_at: AwareDatetime
    session_id: SessionId
    items: Annotated[tuple[EventItem, ...], Field(max_length=500)] = ()
    value: MinorUnits | None = None
    currency: Currency | None = None
    coupon: Text | None = None
    payment_type: Text | None = None
    shipping_tier: Text | None = None
    transaction_id: Text | None = None
    search_term: Text | None = None
    engagement_ms: Annotated[int, Field(ge=0, le=86_400_000)] | None = None
    percent_scrolled: Annotated[int, Field(ge=0, le=100)] | None = None  # since version 2
    # Since version 3; a `feedback` of before said none, and means nothing.
    feedback: FeedbackKind | None = None
    context: EventContext | None = None
    attribution_token: (
        Annotated[str, StringConstraints(max_length=512), AfterValidator(no_card)] | None
    ) = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.event_name in NEEDS_ITEMS and not self.items:
            raise ValueError(f"{self.event_name} needs at least one item")
        if self.event_name in {"purchase", "refund"} and not self.transaction_id:
            raise ValueError(f"{self.event_name} needs a transaction_id")
        if self.feedback is not None and (self.event_name != "feedback" or not self.items):
            raise ValueError("feedback is what an event `feedback` says of its items")
        return self


def _whole(version: object) -> object:
    # A literal takes every number that equals it.
    if type(version) is not int:
        raise ValueError("is no whole number")
    return version


class ClientEvent(EventBody):
    """An event as a caller sends it: raw ids, and what the shopper agreed to on that page. Older
    versions are brought to this one by `contract.event_versions.upgraded`; one of version 2 that
    says nothing of what came later is the same as it stands."""

    schema_version: Annotated[Literal[2, 3], BeforeValidator(_whole)] = SCHEMA_VERSION
    occurred_at: SentMoment
    visitor_id: RawId
    user_id: RawId | None = None
    consent: dict[Literal["personalization", "analytics", "offers"], bool] | None = None
    gpc: bool = False

    @model_validator(mode="after")
    def _says_what_it_is_about(self) -> Self:
        # Only here: a stored search may have had its words taken out for want of consent.
        if self.event_name == "search" and not self.search_term:
            raise ValueError("search needs a search_term")
        # Of older versions `upgraded` has said that there is none.
        if self.event_name == "feedback" and "feedback" not in self.model_fields_set:
            raise ValueError(f"feedback needs a feedback: {', '.join(FEEDBACK_CODE)}")
        return self


class Event(EventBody):
    """An event as it is stored: pseudonymous, with the purposes in effect when it was written."""

    schema_version: Literal[3] = SCHEMA_VERSION
    received_at: AwareDatetime
    subject_id: UUID
    purposes: tuple[str, ...] = ()
    synthetic: bool = False
    decision: dict[str, Any] | None = None


_SENT_ALONE = tuple(ClientEvent.model_fields.keys() - Event.model_fields.keys())


def as_stored(event: ClientEvent, **changed: Any) -> Event:
    """`event` as an `Event`, with the fields that are `changed`, whose values must be valid.

    Every other field was validated in the event as it came; nothing is validated again, and no
    model is copied: this is a tenth of what pydantic's own ways take, once for each event there is.
    """
    fields = event.__dict__.copy()
    for name in _SENT_ALONE:
        del fields[name]
    fields["schema_version"], fields["synthetic"], fields["decision"] = SCHEMA_VERSION, False, None
    fields.update(changed)
    return unchecked(Event, fields)


def unchecked(model: type[Made], fields: dict[str, Any]) -> Made:
    """A `model` of all of its `fields`, each of which is known to be valid."""
    made = model.__new__(model)
    put = object.__setattr__  # the models are frozen
    put(made, "__dict__", fields)
    put(made, "__pydantic_fields_set__", _fields_of(model))
    put(made, "__pydantic_extra__", None)
    put(made, "__pydantic_private__", None)
    return made


@cache
def _fields_of(model: type[BaseModel]) -> set[str]:
    # One for all: pydantic copies it before it changes it, and nobody else does.
    return set(model.model_fields)


def key_of(text: str) -> int:
    """A stable unsigned 64-bit key of an id: the first 8 bytes of its BLAKE2b digest.

    Feature state holds keys instead of ids, so it does not depend on any release's vocabulary.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


NO_AMOUNT: Final = -1
WHOLE_ORDER: Final = -2  # in place of the amount of a refund that gives all of an order back
MOST_PER_LINE: Final = 10**15  # 500 of these still fit 64 bits


def order_amount(event: EventBody) -> int:
    """What a purchase or refund is worth in minor units: its `value`, else its lines where all of
    them are priced, else NO_AMOUNT."""
    if event.value is not None:
        return event.value
    lines = [item.price for item in event.items]
    if not lines or None in lines:
        return NO_AMOUNT
    return sum(min((item.price or 0) * item.quantity, MOST_PER_LINE) for item in event.items)


def given_back(event: EventBody) -> int | None:
    """What a refund gives back in minor units. None: the whole order, which in GA4 is what one
    without amount and items means; 0 where it names items, and nobody said what they cost."""
    amount = order_amount(event)
    if amount == NO_AMOUNT:
        return 0 if event.items else None
    return max(amount, 0)


def honoured_time(occurred_at: datetime, now: datetime) -> datetime:
    """A client's `occurred_at` counts for behaviour up to now, never for the future."""
    return min(occurred_at, now)
