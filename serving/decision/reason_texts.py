"""Every sentence that explains a decision to a shopper. They are English here, so that one that is
missing is found by the type checker; a shop that speaks another language brings a file of its own
(TILLWISE_TEXTS; docs/texts.de.yaml is one)."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from string import Formatter
from typing import Final

from contract.errors import UserError
from contract.fields import one_line
from serving.decision.messages import Reason, ReasonCode
from serving.yaml_text import yaml_body

MOST_CHARACTERS: Final = 200
# Said only to who agreed to personalization.
PERSONAL: Final = frozenset({"bought_before", "goes_with_looked_at", "your_taste"})


@dataclass(frozen=True)
class Texts:
    """The sentences of one language, by what they say."""

    qualifies: str = "For everyone who meets its terms."
    for_this_checkout: str = "Picked for this checkout."
    by_chance: str = "One of the shop's offers, drawn by chance."
    shop_choice: str = "Chosen by the shop."
    bought_before: str = "You bought this before."
    goes_with_cart: str = "Often bought together with {title}."
    goes_with_cart_untitled: str = "Often bought together with an item in your cart."
    goes_with_looked_at: str = "Often bought together with {title}, which you looked at."
    goes_with_looked_at_untitled: str = "Often bought together with an item that you looked at."
    similar_shoppers: str = "Shoppers with a similar cart also bought this."
    similar_shoppers_looked: str = "Shoppers who were after similar items also bought this."
    similar_shoppers_model: str = "Chosen by shoppers in a similar situation."
    your_taste: str = "From a category you often buy."
    popular_now: str = "Popular with many shoppers right now."
    # Of an order of payments or deliveries.
    chosen_before: str = "The way you chose before comes first."
    usual_here: str = "What most shoppers choose at a checkout like this comes first."
    as_sent: str = "In the shop's own order."

    @cached_property
    def by_code(self) -> dict[str, Reason]:
        """Of offers, and of products where all that is left of a reason is its code."""
        found: dict[ReasonCode, str] = {
            "shop_choice": self.shop_choice,
            "qualifies": self.qualifies,
            "for_this_checkout": self.for_this_checkout,
            "by_chance": self.by_chance,
            "bought_before": self.bought_before,
            "goes_with_cart": self.goes_with_cart_untitled,
            "goes_with_looked_at": self.goes_with_looked_at_untitled,
            "similar_shoppers": self.similar_shoppers_model,
            "your_taste": self.your_taste,
            "popular_now": self.popular_now,
        }
        return {code: Reason(code=code, text=text) for code, text in found.items()}

    @cached_property
    def orders(self) -> dict[str, str]:
        """Of an order, by its code."""
        return {name: getattr(self, name) for name in ("chosen_before", "usual_here", "as_sent")}

    @cached_property
    def of_cart(self) -> Reason:
        """What shoppers with such a cart bought."""
        return Reason(code="similar_shoppers", text=self.similar_shoppers)

    @cached_property
    def of_looked(self) -> Reason:
        """What those bought who looked at such items."""
        return Reason(code="similar_shoppers", text=self.similar_shoppers_looked)

    @cached_property
    def goes_with(self) -> Callable[[str, bool], Reason]:
        """What goes with the item of a title (empty: it is not named), of the cart or looked at."""
        return lru_cache(maxsize=4_096)(self._goes_with)  # shoppers' carts hold the same things

    def _goes_with(self, title: str, looked_at: bool) -> Reason:
        if looked_at:
            text = self.goes_with_looked_at if title else self.goes_with_looked_at_untitled
            return Reason(code="goes_with_looked_at", text=text.format(title=title))
        text = self.goes_with_cart if title else self.goes_with_cart_untitled
        return Reason(code="goes_with_cart", text=text.format(title=title))


ENGLISH: Final = Texts()


def read_texts(path: Path) -> Texts:
    """The sentences in the YAML file at `path`; what it leaves out stays English. Raises
    UserError."""
    try:
        said = yaml_body(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(said, dict):
        raise UserError(f"{path}: write a sentence after each name, as `bought_before: ...`")
    known = {one.name for one in fields(Texts)}
    for name, text in said.items():
        if name not in known:
            raise UserError(f"{path}: {name}: there is no such sentence")
        _check(f"{path}: {name}", text, getattr(ENGLISH, name))
    return replace(ENGLISH, **said)


def _check(place: str, text: object, english: str) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= MOST_CHARACTERS:
        raise UserError(f"{place}: is not a sentence of 1 to {MOST_CHARACTERS} characters")
    try:
        one_line(text)
        named = _placeholders(text)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    if named != _placeholders(english):
        wanted = "{title}, once" if _placeholders(english) else "no {}"
        raise UserError(f"{place}: must have {wanted}")


def _placeholders(text: str) -> list[tuple[str | None, ...]]:
    return [tuple(rest) for _, *rest in Formatter().parse(text) if rest[0] is not None]


def of_offer(policy: str, *, explored: bool, forced: bool) -> ReasonCode:
    """Why an offer is shown: a rule's choice, what everybody who qualifies gets, the network's
    choice, or chance."""
    if forced:
        return "shop_choice"
    if policy == "unconditional":
        return "qualifies"
    return "by_chance" if explored or policy == "chance" else "for_this_checkout"
