"""A whole decision as text for a person."""

from datetime import datetime
from typing import Any

from serving.api.demo_page import DemoItem, DemoShopper, Shelf

_WIDTH = 44


def describe(
    shopper: DemoShopper, answer: dict[str, Any], shelf: Shelf, now: datetime, seconds: float
) -> str:
    """Who was at the checkout, what was suggested and why, and what was really bought."""
    bought = {item.item_id for item in shopper.bought_too}
    suggested = answer["recommendations"]
    hits = sum(one["item_id"] in bought for one in suggested)
    star = " (*)" if hits else ""
    degraded = ", ".join(answer["degraded"]) or "none"
    timings = ", ".join(f"{name} {ms:.1f}" for name, ms in answer["timings_ms"].items())
    lines = [
        "",
        f"A checkout at {now:%Y-%m-%d %H:%M} UTC that release {answer['release_id']} never saw",
        f"{shopper.label}; in the cart:",
        *(f"     {_title(item)}  {_price(item)}" for item in shopper.cart),
        "Suggested:",
    ]
    for place, one in enumerate(suggested, start=1):
        item = shelf.item(one["item_id"])
        mark = "*" if one["item_id"] in bought else " "
        title = _title(item) if item else one["item_id"].ljust(_WIDTH)
        lines.append(f" {mark} {place}. {title}  {_price(item)}  score {one['score']:.3f}")
        lines += [f"        {reason['text']}" for reason in one["reasons"]]
    lines += _beside_products(answer)
    lines += [
        f"{hits} of these {len(suggested)} suggestions{star} were bought in the rest of this very "
        f"basket, which held {len(bought)} more items.",
        f"Rung {answer['rung']}; degraded: {degraded}; {seconds * 1_000:.1f} ms over HTTP.",
        f"Stages in ms: {timings}",
        "",
    ]
    return "\n".join(lines)


def _beside_products(answer: dict[str, Any]) -> list[str]:
    """Offers and why, and in which order ways to pay and to be delivered are shown."""
    lines = ["Offered:" if answer["offers"] else "Nothing is offered."]
    for one in answer["offers"]:
        discount = one["discount"]
        worth = f"{discount['amount'] / 100:.2f} {discount['currency']}".rjust(10)
        lines.append(f"     {one['title'][:_WIDTH].ljust(_WIDTH)}  {worth}")
        lines += [f"        {reason['text']}" for reason in one["reasons"]]
    return [
        *lines,
        f"To pay by: {', '.join(answer['payment_method_order'])}",
        f"Delivery: {', '.join(answer['shipping_option_order'])}",
    ]


def _title(item: DemoItem) -> str:
    return (item.title or item.item_id)[:_WIDTH].ljust(_WIDTH)


def _price(item: DemoItem | None) -> str:
    if item is None or item.price is None:
        return "not priced".rjust(10)
    return f"{item.price / 100:.2f} {item.currency}".rjust(10)
