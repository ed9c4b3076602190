"""What the demo's shop sends with every request: what it keeps out of its checkout, the ways to pay
and to be delivered, and the words that its page has for them. In which order they are shown is the
decision's to say."""

from typing import Any, Final

from pydantic import BaseModel

# The demo shop's own policy, sent with every request: nothing that needs proof of age is suggested
# at its checkout. The names are those of the imported catalogue; others match nothing.
AGE_RESTRICTED = (
    "BEERS/ALES",
    "CIGARETTES",
    "CIGARS",
    "DOMESTIC WINE",
    "IMPORTED WINE",
    "LIQUOR",
    "MISC WINE",
    "TOBACCO OTHER",
)
SHOP_FILTER: dict[str, Any] = {"exclude_categories": list(AGE_RESTRICTED)}


class PaymentMethod(BaseModel):
    """A way to pay."""

    id: str
    label: str


class Delivery(BaseModel):
    """A way of delivery; `price` in minor units of the catalogue's currency."""

    id: str
    label: str
    price: int
    days: int


PAYMENT_METHODS: Final = (
    PaymentMethod(id="card", label="Credit or debit card"),
    PaymentMethod(id="wallet", label="Wallet on this device"),
    PaymentMethod(id="bank_transfer", label="Bank transfer"),
    PaymentMethod(id="invoice", label="Invoice (due in 14 days)"),
)
DELIVERIES: Final = (
    Delivery(id="standard", label="To your door", price=399, days=2),
    Delivery(id="express", label="To your door today", price=899, days=0),
    Delivery(id="pickup", label="Collect at the store", price=99, days=1),
)


class DemoOptions(BaseModel):
    """Both, in the order in which the shop would show them by itself."""

    payment_methods: tuple[PaymentMethod, ...] = PAYMENT_METHODS
    shipping_options: tuple[Delivery, ...] = DELIVERIES
