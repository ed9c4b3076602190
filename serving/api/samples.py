"""Sample checkouts that a draft of rules or offers is tried on, by the same code and the same
models that would decide them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contract.encoding import FIRST_ITEM
from contract.events import RawId, SessionId
from contract.expression_variables import Value
from contract.fields import Name
from contract.rule_set import RuleSet
from serving.api.gateway import Gateway
from serving.api.problems import ApiProblem
from serving.decision.admission import Overloaded
from serving.decision.messages import Cart, CartLine, DecideRequest
from serving.decision.offer_shelf import OfferShelf
from serving.decision.outcome import Decision, SubjectContext
from serving.state.sqlite_writer import StoreError

_MOST_SAMPLES: Final = 50
_MADE_UP = 5
_DEADLINE_MS = 1_000


class Assumed(BaseModel):
    """What conditions are to take for so in a sample, whoever the shopper is."""

    model_config = ConfigDict(extra="forbid")

    segments: Annotated[list[Name], Field(max_length=100)] | None = None
    orders: Annotated[int, Field(ge=0, le=10**6)] | None = None

    def values(self) -> Mapping[str, Value]:
        """As the conditions' variables."""
        values: dict[str, Value] = {}
        if self.segments is not None:
            values["segments"] = self.segments
        if self.orders is not None:
            values |= {"shopper.orders": self.orders, "shopper.known": True}
        return values


class Sample(DecideRequest):
    """A checkout as `decide` would be asked, of which everything may be left out."""

    name: Annotated[str, StringConstraints(max_length=100)] = ""
    assume: Assumed = Assumed()
    visitor_id: RawId = "sample"
    session_id: SessionId = "sample"
    cart: Cart | None = None  # type: ignore[assignment]

    def request(self, currency: str) -> DecideRequest:
        """The question itself."""
        said = self.model_dump(exclude={"name", "assume"}, exclude_unset=True)
        empty = {"cart_id": "sample", "currency": currency}
        usual = {"visitor_id": "sample", "session_id": "sample", "cart": empty}
        body = usual | {name: value for name, value in said.items() if value is not None}
        return DecideRequest.model_validate(body | {"deadline_ms": _DEADLINE_MS})


class Checked(BaseModel):
    """Beside a draft: sample checkouts; without any, carts of popular items. `version` and `note`
    are taken as a `PUT` of the draft takes them, and mean nothing here."""

    samples: Annotated[tuple[Sample, ...], Field(max_length=_MOST_SAMPLES)] = ()
    version: int | None = None
    note: str = ""

    def named_samples(self, gateway: Gateway) -> list[tuple[str, Sample]]:
        """Each with a name to tell it by."""
        samples = self.samples or _made_up(gateway)
        return [(one.name or f"sample {place + 1}", one) for place, one in enumerate(samples)]


async def previewed(
    gateway: Gateway,
    sample: Sample,
    question: DecideRequest,
    rules: Sequence[RuleSet],
    shelf: OfferShelf | None = None,
) -> tuple[Decision, ...]:
    """`question`, which is of `sample`, decided under each of `rules`. Raises a 429 problem."""
    who, assumed = _subject_of(gateway, question), sample.assume.values()
    try:
        return tuple(await gateway.decider.preview(question, who, rules, assumed, shelf))
    except Overloaded as error:
        wait = {"Retry-After": str(error.retry_after_s)}
        raise ApiProblem(429, "The gateway is busy; try again.", headers=wait) from None


def _subject_of(gateway: Gateway, question: DecideRequest) -> SubjectContext:
    """Whom the sample names, as a decision would find them; nothing is written."""
    try:
        who = gateway.subjects.recognise(
            question.visitor_id, question.user_id, question.consent, gpc=question.gpc
        )
    except StoreError:
        return SubjectContext()
    return SubjectContext(who.subject_id, who.purposes, who.histories)


def _made_up(gateway: Gateway) -> tuple[Sample, ...]:
    """An empty cart, and carts of one popular item each."""
    release = gateway.live.current
    popular = [one for one in release.by_popularity.tolist() if one >= FIRST_ITEM][: _MADE_UP - 1]
    price = release.catalogue.now.price
    carts = [
        Cart(
            cart_id="sample",
            currency=release.catalogue.currency,
            items=(
                CartLine(
                    item_id=release.vocabulary.item_id(one),
                    price=int(price[one]) if price[one] >= 0 else None,
                ),
            ),
        )
        for one in popular
    ]
    return (
        Sample(name="empty cart"),
        *(Sample(name=f"cart of {cart.items[0].item_id}", cart=cart) for cart in carts),
    )
