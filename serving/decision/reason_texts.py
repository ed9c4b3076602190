"""Every sentence that explains a suggestion to a shopper. A module, not a file beside the code, so
that it is in every package and a missing text is found by the type checker's first run."""

from serving.decision.messages import ReasonCode

QUALIFIES = "For everyone who meets its terms."
FOR_THIS_CHECKOUT = "Picked for this checkout."
BY_CHANCE = "One of the shop's offers, drawn by chance."
SHOP_CHOICE = "Chosen by the shop."
BOUGHT_BEFORE = "You bought this before."
GOES_WITH_CART = "Often bought together with {title}."
GOES_WITH_CART_UNTITLED = "Often bought together with an item in your cart."
GOES_WITH_LOOKED_AT = "Often bought together with {title}, which you looked at."
GOES_WITH_LOOKED_AT_UNTITLED = "Often bought together with an item that you looked at."
SIMILAR_SHOPPERS = "Shoppers with a similar cart also bought this."
SIMILAR_SHOPPERS_LOOKED = "Shoppers who were after similar items also bought this."
SIMILAR_SHOPPERS_MODEL = "Chosen by shoppers in a similar situation."
YOUR_TASTE = "From a category you often buy."
POPULAR_NOW = "Popular with many shoppers right now."

# Where all that is left of a reason is its code.
BY_CODE = {
    "shop_choice": SHOP_CHOICE,
    "qualifies": QUALIFIES,
    "for_this_checkout": FOR_THIS_CHECKOUT,
    "by_chance": BY_CHANCE,
    "bought_before": BOUGHT_BEFORE,
    "goes_with_cart": GOES_WITH_CART_UNTITLED,
    "goes_with_looked_at": GOES_WITH_LOOKED_AT_UNTITLED,
    "similar_shoppers": SIMILAR_SHOPPERS_MODEL,
    "your_taste": YOUR_TASTE,
    "popular_now": POPULAR_NOW,
}
# Said only to who agreed to personalization.
PERSONAL = frozenset({"bought_before", "goes_with_looked_at", "your_taste"})
# Of an order of payments or deliveries.
ORDERS = {
    "chosen_before": "The way you chose before comes first.",
    "usual_here": "What most shoppers choose at a checkout like this comes first.",
    "as_sent": "In the shop's own order.",
}


def of_offer(policy: str, *, explored: bool, forced: bool) -> ReasonCode:
    """Why an offer is shown: a rule's choice, what everybody who qualifies gets, the network's
    choice, or chance."""
    if forced:
        return "shop_choice"
    if policy == "unconditional":
        return "qualifies"
    return "by_chance" if explored or policy == "chance" else "for_this_checkout"
