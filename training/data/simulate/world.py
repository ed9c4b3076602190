"""The world file: every behavioural parameter of the simulator, checked, in JSON.

Shares and weights are relative: they need not add up to one. Rates of events are probabilities;
`*_odds` multiply the odds of a probability, so that it stays between 0 and 1.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from contract.errors import UserError

Probability = Annotated[float, Field(ge=0, le=1)]
# A behavioural rate whose odds are shifted; 0 and 1 have no finite odds.
Rate = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
DeviceName = Literal["desktop", "mobile", "tablet", "other"]
CheckoutStep = Literal["begin_checkout", "add_shipping_info", "add_payment_info"]
CHECKOUT_STEPS: tuple[CheckoutStep, ...] = get_args(CheckoutStep)


def _some_weight(weights: list[float] | dict[str, float]) -> list[float] | dict[str, float]:
    if sum(weights.values() if isinstance(weights, dict) else weights) <= 0:
        raise ValueError("needs at least one weight above 0")
    return weights


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone") from error
    return name


Weights = Annotated[dict[Name, Weight], AfterValidator(_some_weight)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Region(_Part):
    """Where shoppers live; hours and weekdays are those of `timezone`."""

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    region: Name
    timezone: Annotated[str, AfterValidator(_known_zone)]
    share: Weight
    payment_types: Weights


class Device(_Part):
    """What a device does to behaviour: factors on views and dwell, on hovering, on buying."""

    share: Weight
    views: Positive = 1.0
    dwell: Positive = 1.0
    hover: Probability = 1.0
    purchase_odds: Positive = 1.0


class Intent(_Part):
    """Why somebody came: factors on what the archetype usually does."""

    views: Positive = 1.0
    search: Weight = 1.0
    repeat: Weight = 1.0
    add_odds: Positive = 1.0
    checkout_odds: Positive = 1.0


class Consent(_Part):
    """How many agree to each purpose."""

    analytics: Probability
    personalization: Probability
    offers: Probability


class Archetype(_Part):
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


class Rhythm(_Part):
    """Relative traffic by local hour (0..23) and by weekday (Monday first)."""

    hours: Annotated[
        list[Weight], Field(min_length=24, max_length=24), AfterValidator(_some_weight)
    ]
    weekdays: Annotated[
        list[Weight], Field(min_length=7, max_length=7), AfterValidator(_some_weight)
    ]


class Items(_Part):
    """Popularity, lists and what goes together.

    `category_level` of the catalogue's `category_path` is what shoppers have an affinity to.
    """

    zipf_exponent: Weight
    category_level: Annotated[int, Field(ge=0, le=10)]
    list_length: Annotated[int, Field(ge=1, le=100)]
    complements_per_item: Annotated[int, Field(ge=1, le=50)]
    complement_probability: Probability
    extra_unit_probability: Annotated[float, Field(ge=0, lt=1)]


class Taste(_Part):
    """How shoppers differ: a small `concentration` means few favourite categories each."""

    concentration: Positive
    drift_per_week: Probability
    staples: Annotated[int, Field(ge=1, le=200)]
    staple_add_odds: Positive
    sensitivity_spread: Weight
    visits_dispersion: Positive
    views_dispersion: Positive


class Duration(_Part):
    """A log-normal length of time."""

    median_ms: Positive
    sigma: Annotated[float, Field(ge=0, le=3)]


class Engagement(_Part):
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


class ShippingTier(_Part):
    """A way of delivery; its price in minor units weighs on those who watch prices."""

    weight: Weight
    price: Annotated[int, Field(ge=0)]


class Checkout(_Part):
    """What is chosen at checkout, and after which step the others leave."""

    shipping_tiers: Annotated[dict[Name, ShippingTier], Field(min_length=1)]
    shipping_price_weight: Weight
    payment_loyalty: Probability
    abandon_after: Annotated[
        dict[CheckoutStep, Weight],
        AfterValidator(_some_weight),
    ]


class Delivery(_Part):
    """How events travel: `late_share` of them arrive up to `late_hours` after they happened."""

    delay: Duration
    late_share: Probability
    late_hours: Weight


class World(_Part):
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, archetype in self.archetypes.items():
            unknown = sorted(set(archetype.intents) - set(self.intents))
            if unknown:
                raise ValueError(f"archetypes.{name}.intents: unknown intent {unknown[0]!r}")
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
