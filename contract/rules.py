"""Override rules as a merchant writes them: when one holds, and what it then does to a decision.

Rules are applied last and win over every model. Among themselves the higher priority wins, then the
earlier id. What no rule can do: show what is not in stock, not sold in the region, in the cart or
outside of the caller's filter; give an offer that is not valid for this checkout.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StringConstraints,
    model_validator,
)

from contract.catalogue import ItemId
from contract.fields import Name, distinct
from contract.offers import OfferId
from contract.schedule import Schedule

MOST_RULES: Final = 1_000
MOST_NAMED: Final = 1_000  # items or categories of one action
PLACES: Final = 5

RuleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Items = Annotated[tuple[ItemId, ...], Field(max_length=MOST_NAMED), AfterValidator(distinct)]
Categories = Annotated[tuple[Name, ...], Field(max_length=MOST_NAMED), AfterValidator(distinct)]
Options = Annotated[tuple[Name, ...], Field(max_length=50), AfterValidator(distinct)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pin(_Strict):
    """Show `items` from `position` (1: the first) on, in this order, whatever the models found."""

    kind: Literal["pin"]
    items: Annotated[
        tuple[ItemId, ...], Field(min_length=1, max_length=PLACES), AfterValidator(distinct)
    ]
    position: Annotated[int, Strict(), Field(ge=1, le=PLACES)] = 1


class _Products(_Strict):
    """Products by item id, or by the name of a category at any level of their path."""

    items: Items = ()
    categories: Categories = ()

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.items or self.categories):
            raise ValueError("name items or categories")
        return self


class Exclude(_Products):
    """Never show these."""

    kind: Literal["exclude"]


class Boost(_Products):
    """Move these up by so many `places`; without a number before all that no rule prefers, and then
    those too that the models did not find. Of several boosts of one item the strongest counts."""

    kind: Literal["boost"]
    places: Annotated[int, Strict(), Field(ge=1, le=100)] | None = None


class ForceOffer(_Strict):
    """Give this offer, whatever the models say of it, if the checkout may have it."""

    kind: Literal["force_offer"]
    offer_id: OfferId


class BlockOffer(_Strict):
    """Do not give these offers; without ids none at all."""

    kind: Literal["block_offer"]
    offer_ids: Annotated[tuple[OfferId, ...], Field(max_length=200), AfterValidator(distinct)] = ()


class ReplaceOffer(_Strict):
    """Where `offer_id` would be given, give the other one, if the checkout may have that."""

    kind: Literal["replace_offer"]
    offer_id: OfferId
    by: OfferId

    @model_validator(mode="after")
    def _another(self) -> Self:
        if self.by == self.offer_id:
            raise ValueError("by: must be another offer")
        return self


class _Order(_Strict):
    """Put `first` before the others, in this order, and leave out what is to be hidden: never all
    of it. What the caller did not send is not added."""

    first: Options = ()
    hide: Options = ()

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.first or self.hide):
            raise ValueError("name what comes first or what is hidden")
        if set(self.first) & set(self.hide):
            raise ValueError("the same option can not come first and be hidden")
        return self


class OrderPayments(_Order):
    """The order of payment methods."""

    kind: Literal["order_payments"]


class OrderShipping(_Order):
    """The order of shipping options, by their ids."""

    kind: Literal["order_shipping"]


Action = Annotated[
    Pin | Exclude | Boost | ForceOffer | BlockOffer | ReplaceOffer | OrderPayments | OrderShipping,
    Field(discriminator="kind"),
]


class Rule(_Strict):
    """`condition` in CEL over shopper, segments, cart, context and decision (none: always). Within
    `schedule`, by the gateway's clock. Actions are read in their order: of two that contradict each
    other the earlier holds."""

    id: RuleId
    title: Annotated[str, StringConstraints(max_length=200)] = ""
    condition: Annotated[str, StringConstraints(max_length=1_000)] | None = None
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=10)]
    priority: Annotated[int, Strict(), Field(ge=-1_000_000, le=1_000_000)] = 0
    schedule: Schedule = Schedule()
    enabled: StrictBool = True


def _distinct_ids(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    if len({rule.id for rule in rules}) != len(rules):
        raise ValueError("two rules have the same id")
    return rules


class RuleBook(_Strict):
    """All rules of a shop."""

    rules: Annotated[
        tuple[Rule, ...], Field(max_length=MOST_RULES), AfterValidator(_distinct_ids)
    ] = ()


EMPTY_BOOK: Final = RuleBook()


def in_order(book: RuleBook) -> tuple[Rule, ...]:
    """The enabled rules of `book`, the strongest first."""
    enabled = [rule for rule in book.rules if rule.enabled]
    return tuple(sorted(enabled, key=lambda rule: (-rule.priority, rule.id)))
