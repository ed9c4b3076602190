"""The parts of a world about offers, payment and delivery: what is tried, and what it does.

Everything here is optional in a world file; without it nobody is offered anything, and payment and
delivery are chosen as `checkout` says.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from contract.offers import Discount
from training.data.simulate.parts import DeviceName, Name, Part, Positive, Probability


class Arm(Part):
    """An offer that is tried. `share` is how often, against the other arms and no offer, and
    `device_share` multiplies it. `odds` multiply the odds of buying, by archetype (1 where one is
    not named; below 1 an offer drives people away)."""

    discount: Discount
    share: Positive
    device_share: dict[DeviceName, Positive] = Field(default_factory=dict)
    odds: dict[Name, Positive]


class Effect(Part):
    """How the log-odds that an arm adds vary within an archetype.

    They are multiplied by (sensitivity / that of the archetype) ** `sensitivity_slope`, by (cart
    value / `reference_value`) ** `value_slope`, each within `least`..`most`, and by `devices`.
    """

    sensitivity_slope: float = 0.0
    value_slope: float = 0.0
    reference_value: Positive = 2_000.0  # minor units
    least: Positive = 0.5
    most: Positive = 2.0
    devices: dict[DeviceName, Positive] = Field(default_factory=dict)


class OfferWorld(Part):
    """A randomised experiment at the beginning of checkout, among those who agreed to offers and
    to personalisation. `margin_rate` is the shop's margin as a share of the cart's value."""

    margin_rate: Probability
    no_offer_share: Positive
    arms: Annotated[dict[Name, Arm], Field(min_length=1, max_length=16)]
    effect: Effect = Effect()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if "none" in self.arms:
            raise ValueError("arms.none: that is the name of no offer")
        return self


class DeliveryWish(Part):
    """A way of delivery: in how many days, and factors on how much it is wanted. `value_slope` is
    the power of (cart value / reference) by which it is wanted more."""

    days: Annotated[int, Field(ge=0, le=60)]
    regions: dict[Name, Positive] = Field(default_factory=dict)
    devices: dict[DeviceName, Positive] = Field(default_factory=dict)
    value_slope: float = 0.0


class PaymentWish(Part):
    """A way to pay: factors on how much it is wanted, beyond the share in its region."""

    devices: dict[DeviceName, Positive] = Field(default_factory=dict)
    value_slope: float = 0.0


class Preferences(Part):
    """What moves the choices at checkout. `hurry_spread` is the standard deviation of how much a
    shopper minds a day of waiting (log scale) around `hurry`, the weight of one day."""

    reference_value: Positive = 2_000.0
    payments: dict[Name, PaymentWish] = Field(default_factory=dict)
    deliveries: dict[Name, DeliveryWish] = Field(default_factory=dict)
    hurry: Annotated[float, Field(ge=0)] = 0.0
    hurry_spread: Annotated[float, Field(ge=0, le=3)] = 0.0
