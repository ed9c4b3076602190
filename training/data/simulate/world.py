"""The world file: every behavioural parameter of the simulator, checked, in JSON.

Shares and weights are relative: they need not add up to one. Rates of events are probabilities;
`*_odds` multiply the odds of a probability, so that it stays between 0 and 1.
"""

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StringConstraints, ValidationError, model_validator

from contract.errors import UserError
from contract.offers import FreeShipping
from contract.zones import Zone
from training.data.simulate.parts import (
    DeviceName,
    Name,
    Part,
    Positive,
    Probability,
    Rate,
    Weight,
    Weights,
    some_weight,
)
from training.data.simulate.world_offers import OfferWorld, Preferences

CheckoutStep = Literal["begin_checkout", "add_shipping_info", "add_payment_info"]
CHECKOUT_STEPS: tuple[CheckoutStep, ...] = get_args(CheckoutStep)


class Region(Part):
    """Where shoppers live; hours and weekdays are those of `timezone`."""

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    region: Name
    timezone: Zone
    share: Weight
    payment_types: Weights


class Device(Part):
    """What a device does to behaviour: factors on views and dwell, on hovering, on buying."""

    share: Weight
    views: Positive = 1.0
    dwell: Positive = 1.0
    hover: Probability = 1.0
    purchase_odds: Positive = 1.0


class Intent(Part):
    """Why somebody came: factors on what the archetype usually does."""

    views: Positive = 1.0
    search: Weight = 1.0
    repeat: Weight = 1.0
    add_odds: Positive = 1.0
    checkout_odds: Positive = 1.0


class Consent(Part):
    """How many agree to each purpose."""

    analytics: Probability
    personalization: Probability
    offers: Probability


class Archetype(Part):
    """A kind of shopper.

    `price_sensitivity` lowers the log-odds of adding an item per unit of log price over the median
    of its category. `category_loyalty` is the chance that a view stays in the category of the
    visit, `repeat_probability` that it is one of the shopper's staples.
    """

    share: Weight
    visits_per_week: Positive
    views_per_session: Annotated[float, Field(ge=1, le=500)]
    search_probability: Probability
    list_probability: Probability
    add_to_cart_rate: Rate
    remove_rate: Probability
    checkout_rate: Rate
    purchase_rate: Rate
    price_sensitivity: Weight
    category_loyalty: Probability
    repeat_probability: Probability
    intents: Weights
    consent: Consent


class Rhythm(Part):
    """Relative traffic by local hour (0..23) and by weekday (Monday first)."""

    hours: Annotated[list[Weight], Field(min_length=24, max_length=24), some_weight]
    weekdays: Annotated[list[Weight], Field(min_length=7, max_length=7), some_weight]


class Items(Part):
    """Popularity, lists and what goes together.

    `category_level` of the catalogue's `category_path` is what shoppers have an affinity to.
    """

    zipf_exponent: Weight
    category_level: Annotated[int, Field(ge=0, le=10)]
    list_length: Annotated[int, Field(ge=1, le=100)]
    complements_per_item: Annotated[int, Field(ge=1, le=50)]
    complement_probability: Probability
    extra_unit_probability: Annotated[float, Field(ge=0, lt=1)]


class Taste(Part):
    """How shoppers differ: a small `concentration` means few favourite categories each."""

    concentration: Positive
    drift_per_week: Probability
    staples: Annotated[int, Field(ge=1, le=200)]
    staple_add_odds: Positive
    sensitivity_spread: Weight
    visits_dispersion: Positive
    views_dispersion: Positive


class Duration(Part):
    """A log-normal length of time."""

    median_ms: Positive
    sigma: Annotated[float, Field(ge=0, le=3)]


class Engagement(Part):
    """The small signals around a view, and how long things take."""

    hover_probability: Probability
    click_probability: Probability
    list_scroll_probability: Probability
    page_scroll_probability: Probability
    dwell_probability: Probability
    view_cart_probability: Probability
    hover: Duration
    dwell: Duration
    step: Duration


class ShippingTier(Part):
    """A way of delivery; its price in minor units weighs on those who watch prices."""

    weight: Weight
    price: Annotated[int, Field(ge=0)]


class Checkout(Part):
    """What is chosen at checkout, and after which step the others leave."""

    shipping_tiers: Annotated[dict[Name, ShippingTier], Field(min_length=1)]
    shipping_price_weight: Weight
    payment_loyalty: Probability
    abandon_after: Annotated[
        dict[CheckoutStep, Weight],
        some_weight,
    ]


class Delivery(Part):
    """How events travel: `late_share` of them arrive up to `late_hours` after they happened."""

    delay: Duration
    late_share: Probability
    late_hours: Weight


class World(Part):
    """Everything that can be set about synthetic shoppers."""

    name: Name
    regions: Annotated[list[Region], Field(min_length=1)]
    devices: Annotated[dict[DeviceName, Device], Field(min_length=1)]
    device_loyalty: Probability
    gpc_share: Probability
    rhythm: Rhythm
    intents: Annotated[dict[Name, Intent], Field(min_length=1)]
    archetypes: Annotated[dict[Name, Archetype], Field(min_length=1)]
    items: Items
    taste: Taste
    engagement: Engagement
    checkout: Checkout
    delivery: Delivery
    offers: OfferWorld | None = None
    preferences: Preferences | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, archetype in self.archetypes.items():
            unknown = sorted(set(archetype.intents) - set(self.intents))
            if unknown:
                raise ValueError(f"archetypes.{name}.intents: unknown intent {unknown[0]!r}")
        self._offers_known()
        tiers = self.checkout.shipping_tiers.values()
        shares = {
            "regions": [region.share for region in self.regions],
            "devices": [device.share for device in self.devices.values()],
            "archetypes": [archetype.share for archetype in self.archetypes.values()],
            "checkout.shipping_tiers": [tier.weight for tier in tiers],
        }
        for field, values in shares.items():
            if sum(values) <= 0:
                raise ValueError(f"{field}: at least one share must be above 0")
        return self

    def _offers_known(self) -> None:
        """ValueError where offers or preferences name what this world does not have."""
        tiers, regions = self.checkout.shipping_tiers, {home.region for home in self.regions}
        payments = {name for home in self.regions for name in home.payment_types}
        for name, arm in (self.offers.arms if self.offers else {}).items():
            where = f"offers.arms.{name}"
            _known(f"{where}.odds: unknown archetype", arm.odds, self.archetypes)
            if isinstance(arm.discount, FreeShipping):
                _known(f"{where}.discount: unknown tier", arm.discount.shipping_ids, tiers)
        if self.preferences is None:
            return
        _known("preferences.payments: unknown payment", self.preferences.payments, payments)
        _known("preferences.deliveries: unknown tier", self.preferences.deliveries, tiers)
        for name, way in self.preferences.deliveries.items():
            where = f"preferences.deliveries.{name}.regions: unknown region"
            _known(where, way.regions, regions)


def _known(complaint: str, named: Iterable[str], known: Container[str]) -> None:
    for name in named:
        if name not in known:
            raise ValueError(f"{complaint} {name!r}")


def load_world(path: Path) -> World:
    """The world in `path`. Raises UserError naming the file and the first field that is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such world file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error.msg}, line {error.lineno})") from error
    try:
        return World.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{path}: {field}: {first['msg']}{more}") from error
