"""What a checkout asks and what it is answered: the body of `POST /v1/checkout/decide` and of its
response. Everything is bounded, and every field that is not known is refused."""

from collections.abc import Hashable
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Literal, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
)

from contract.catalogue import MOST_MINOR, Currency, ItemId, MinorUnits
from contract.consent import Purpose
from contract.events import EventContext, RawId, SessionId, Text, unchecked
from contract.fields import Name, distinct
from contract.keyed_hash import EMPTY_SHA256
from contract.offer_checks import RejectionReason

MAX_CART_LINES = 500
MAX_RESULTS = 5
DEFAULT_DEADLINE_MS = 100

Rung = Literal["full", "no_ranker", "session_knn", "popular", "empty"]
RUNGS: tuple[Rung, ...] = ("full", "no_ranker", "session_knn", "popular", "empty")
Placement = Literal["recommendations", "offers", "payment", "shipping"]
PLACEMENTS: tuple[Placement, ...] = ("recommendations", "offers", "payment", "shipping")
ReasonCode = Literal[
    "shop_choice",
    "qualifies",
    "for_this_checkout",
    "by_chance",
    "bought_before",
    "goes_with_cart",
    "goes_with_looked_at",
    "similar_shoppers",
    "your_taste",
    "popular_now",
]

Price = Annotated[MinorUnits, Strict()]
H = TypeVar("H", bound=Hashable)


def _some(values: tuple[H, ...]) -> tuple[H, ...]:
    # Not min_length: a list of one wrong name would then be told that it is empty as well.
    if not values:
        raise ValueError("must name at least one")
    return values


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CartLine(_Message):
    """One line of the cart; `price` per unit in minor units of the cart's currency."""

    item_id: ItemId
    quantity: Annotated[int, Strict(), Field(ge=1, le=1_000_000)] = 1
    price: Price | None = None


def _payable(lines: tuple[CartLine, ...]) -> tuple[CartLine, ...]:
    # What ledger and conditions reckon with has 64 bits.
    if sum((line.price or 0) * line.quantity for line in lines) > MOST_MINOR:
        raise ValueError(f"are worth more than {MOST_MINOR} minor units in all")
    return lines


class Cart(_Message):
    """The caller's cart is the truth. Lines are in the order in which they were put in."""

    cart_id: Name
    currency: Currency
    items: Annotated[
        tuple[CartLine, ...], Field(max_length=MAX_CART_LINES), AfterValidator(_payable)
    ] = ()

    @property
    def value(self) -> int | None:
        """What the goods are worth in minor units; None where a line has no price."""
        value = 0
        for line in self.items:
            if line.price is None:
                return None
            value += line.price * line.quantity
        return value

    @property
    def digest(self) -> str:
        """Of what is bought, how much of it and at which price: the same for the same goods in any
        order, on however many lines."""
        bought: dict[str, int] = {}
        for line in self.items:
            price = "null" if line.price is None else line.price
            named = f"[{quoted(line.item_id)}, {price}]"  # as json.dumps has it, here and below
            bought[named] = bought.get(named, 0) + line.quantity
        lines = ", ".join([f"[{quoted(named)}, {n}]" for named, n in sorted(bought.items())])
        hashed = EMPTY_SHA256.copy()
        hashed.update(f"[{quoted(self.currency)}, [{lines}]]".encode())
        return hashed.hexdigest()


_OF_EVENTS = tuple(EventContext.model_fields)


class DecideContext(EventContext):
    """Where, on what and when. `occurred_at` counts for behaviour up to now; `first_order` is the
    caller's word, which only offers use."""

    occurred_at: AwareDatetime | None = None
    first_order: StrictBool | None = None

    def event_context(self) -> EventContext:
        """The part that is kept with events."""
        said = self.__dict__
        return unchecked(EventContext, {name: said[name] for name in _OF_EVENTS})


class ShippingOption(_Message):
    """A way of delivery that the shop offers for this cart."""

    id: Name
    price: Price | None = None
    days: Annotated[int, Strict(), Field(ge=0, le=365)] | None = None


def _named_once(options: tuple[ShippingOption, ...]) -> tuple[ShippingOption, ...]:
    distinct(tuple(one.id for one in options))
    return options


class Filter(_Message):
    """Which items may be recommended. A category matches at any level of an item's path."""

    include_categories: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    exclude_categories: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    exclude_items: Annotated[tuple[ItemId, ...], Field(max_length=1_000)] = ()
    max_price: Price | None = None


class DecideRequest(_Message):
    """A checkout that asks for a decision within `deadline_ms`."""

    visitor_id: RawId
    user_id: RawId | None = None
    session_id: SessionId
    cart: Cart
    context: DecideContext = DecideContext()
    consent: dict[Purpose, StrictBool] | None = None
    gpc: StrictBool = False
    recent_items: Annotated[tuple[ItemId, ...], Field(max_length=100)] = ()
    search_terms: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    payment_methods: Annotated[
        tuple[Name, ...], Field(max_length=50), AfterValidator(distinct)
    ] = ()
    shipping_options: Annotated[
        tuple[ShippingOption, ...], Field(max_length=50), AfterValidator(_named_once)
    ] = ()
    placements: Annotated[
        tuple[Placement, ...], Field(max_length=4), AfterValidator(distinct), AfterValidator(_some)
    ] = PLACEMENTS
    num_results: Annotated[int, Strict(), Field(ge=1, le=MAX_RESULTS)] = MAX_RESULTS
    filter: Filter = Filter()
    deadline_ms: Annotated[int, Strict(), Field(ge=1, le=1_000)] = DEFAULT_DEADLINE_MS
    validate_only: StrictBool = False


class Reason(_Message):
    """Why an item is shown: a code for a machine, a sentence for a person."""

    code: ReasonCode
    text: str


class Recommendation(_Message):
    """One suggestion. `score` falls from one to the next within a decision and means nothing else:
    what the shop's rules put before others takes on their score."""

    item_id: str
    score: float
    reasons: tuple[Reason, ...]


class Discount(_Message):
    """What an offer takes off this cart: `amount` in minor units of `currency`, at most that of
    delivery. `percent` is what was promised, `shipping_ids` the ways of delivery that are free
    (none named: all)."""

    kind: Literal["percent", "amount", "free_shipping"]
    amount: int
    currency: Currency
    percent: float | None = None
    shipping_ids: tuple[str, ...] = ()


class Offer(_Message):
    """An offer that the shopper may take."""

    offer_id: str
    title: str
    discount: Discount
    offer_token: str
    expires_at: AwareDatetime
    reasons: tuple[Reason, ...] = ()


class RejectedOffer(_Message):
    """An offer that was considered and may not be shown, and why, in Talon.One's words."""

    offer_id: str
    rejection_reason: RejectionReason


class ExperimentArm(_Message):
    """The variant of an experiment that this decision belongs to."""

    key: str
    variant: str


class DecideResponse(_Message):
    """The decision. `degraded` names the stages that did not do their part within the deadline;
    `rung` says how good an answer was still possible. Times are in milliseconds."""

    decision_id: UUID
    attribution_token: str
    recommendations: tuple[Recommendation, ...] = ()
    offers: tuple[Offer, ...] = ()
    rejected_offers: tuple[RejectedOffer, ...] = ()
    payment_method_order: tuple[str, ...] = ()
    shipping_option_order: tuple[str, ...] = ()
    applied_rules: tuple[str, ...] = ()
    experiments: tuple[ExperimentArm, ...] = ()
    missing_item_ids: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    rung: Rung
    release_id: str
    timings_ms: dict[str, float] = {}
