"""What makes a segment, in one typed file that a shop can set: the thresholds of the rules and the
contextual segments. A fit takes it from the imported folder (`segment_config.json`) and writes it
into the run, an export into the release under the manifest's hashes, and a gateway decides with the
one of its release: so training and serving can not differ, and new thresholds come with a release.

What a file does not name keeps its default. `docs/segment_config.json` holds all defaults.
"""

import json
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import model_validator as validator

from contract.catalogue import Currency, MinorUnits
from contract.clock import DAY_US
from contract.errors import UserError
from contract.events import key_of

# In the order of the models' input. Their meaning is in `contract.segments`.
RULES: Final = (
    "unknown",
    "prospects",
    "first_time_buyers",
    "repeat_buyers",
    "high_value_repeat_buyers",
    "browsing_explorers",
    "promo_seekers",
    "lapsing",
)
TITLES: Final = {
    "unknown": "Unknown",
    "prospects": "Prospects",
    "first_time_buyers": "First-Time Buyers",
    "repeat_buyers": "Repeat Buyers",
    "high_value_repeat_buyers": "High-Value Repeat Buyers",
    "browsing_explorers": "Browsing Explorers",
    "promo_seekers": "Promo Seekers",
    "lapsing": "Lapsing",
}
# Places of the models' input for contextual segments, so that its width is the same in every shop.
CONTEXT_SLOTS: Final = 8

# Europe by ISO 3166-1: the UN's list (M49), with Cyprus, a member of the EU, and Kosovo (XK).
_EUROPE = """
    AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU
    LV MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK
"""
EUROPE: Final = tuple(_EUROPE.split())
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Count = Annotated[int, Field(ge=1, le=100_000)]
Days = Annotated[float, Field(gt=0, le=3_650, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Hour = Annotated[int, Field(ge=0, le=24)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
SegmentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
GroupName = SegmentName
Device = Literal["desktop", "mobile", "tablet", "other"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FirstTimeBuyers(_Strict):
    """One order so far, and that not long ago."""

    within_days: Annotated[Days, Field(description="The order is younger than this.")] = 60.0


class RepeatBuyers(_Strict):
    """Came back."""

    min_orders: Annotated[Count, Field(description="Orders that were not given back in full.")] = 2


class HighValueRepeatBuyers(_Strict):
    """Came back, and spends much."""

    min_orders: Annotated[Count, Field(description="Orders that were not given back in full.")] = 3
    min_spend_per_order: Annotated[
        MinorUnits, Field(description="Mean of their net amounts, in minor units (cents).")
    ] = 5_000


class BrowsingExplorers(_Strict):
    """Look around without buying."""

    min_items: Annotated[
        Count, Field(description="Different products looked at since the last order.")
    ] = 3
    min_categories: Annotated[
        Count, Field(description="Different categories that these are of.")
    ] = 1
    within_days: Annotated[Days, Field(description="How far back looking counts.")] = 30.0


class PromoSeekers(_Strict):
    """Buy with coupons, or look at promotions: one of the two is enough."""

    min_coupon_orders: Annotated[Count, Field(description="Orders with a coupon.")] = 2
    min_coupon_share: Annotated[Share, Field(description="Their share of all orders.")] = 0.5
    min_promotions: Annotated[Count, Field(description="Promotions seen or chosen.")] = 3
    within_days: Annotated[Days, Field(description="How far back promotions count.")] = 30.0


class Lapsing(_Strict):
    """Bought, but not lately."""

    min_orders: Annotated[Count, Field(description="Orders that were not given back in full.")] = 1
    days: Annotated[Days, Field(description="Days since the last of them.")] = 45.0


class Hours(_Strict):
    """Local hours from `from_hour` up to, but without, `until_hour`; 22 to 6 goes over midnight."""

    from_hour: Annotated[int, Field(ge=0, le=23)]
    until_hour: Hour

    @validator(mode="after")
    def _some(self) -> Self:
        if self.from_hour == self.until_hour:
            raise ValueError("from_hour and until_hour are the same")
        return self

    def holds(self, hour: int) -> bool:
        """Whether `hour` 0..23 lies within."""
        if self.from_hour < self.until_hour:
            return self.from_hour <= hour < self.until_hour
        return hour >= self.from_hour or hour < self.until_hour


class ContextualSegment(_Strict):
    """Where, on what and when somebody shops. Everything that is named must hold; of a list, one
    member must. What a context does not say does not hold."""

    name: SegmentName
    title: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    devices: tuple[Device, ...] = ()
    countries: tuple[Country, ...] = ()
    country_groups: tuple[GroupName, ...] = ()  # members count like `countries`
    regions: tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...] = ()
    hours: Hours | None = None
    weekdays: tuple[Weekday, ...] = ()

    @validator(mode="after")
    def _says_something(self) -> Self:
        if not any((self.devices, self.lands, self.regions, self.hours, self.weekdays)):
            raise ValueError("names no condition, so it would hold for everybody")
        return self

    @property
    def lands(self) -> tuple[str, ...]:
        """Countries and country groups."""
        return (*self.countries, *self.country_groups)

    @property
    def timed(self) -> bool:
        """Whether it begins and ends with the clock."""
        return self.hours is not None or bool(self.weekdays)


_MOBILE_EUROPE = ContextualSegment(
    name="mobile_shoppers_in_europe_during_peak_hours",
    title="Mobile Shoppers in Europe during Peak Hours",
    devices=("mobile",),
    country_groups=("europe",),
    hours=Hours(from_hour=17, until_hour=20),
)


class SegmentConfig(_Strict):
    """All segments of a shop but the learned ones."""

    currency: Annotated[
        Currency | None,
        Field(
            description="Only orders in this currency count for spending; none: those in that of "
            "the latest order."
        ),
    ] = None
    first_time_buyers: FirstTimeBuyers = FirstTimeBuyers()
    repeat_buyers: RepeatBuyers = RepeatBuyers()
    high_value_repeat_buyers: HighValueRepeatBuyers = HighValueRepeatBuyers()
    browsing_explorers: BrowsingExplorers = BrowsingExplorers()
    promo_seekers: PromoSeekers = PromoSeekers()
    lapsing: Lapsing = Lapsing()
    country_groups: Annotated[
        dict[GroupName, Annotated[tuple[Country, ...], Field(min_length=1)]],
        Field(description="Countries by the name of their group, by ISO 3166-1."),
    ] = {"europe": EUROPE}
    contextual: Annotated[tuple[ContextualSegment, ...], Field(max_length=CONTEXT_SLOTS)] = (
        _MOBILE_EUROPE,
    )

    @validator(mode="after")
    def _names_fit(self) -> Self:
        taken = list(RULES)
        for segment in self.contextual:
            if segment.name in taken:
                raise ValueError(f"contextual: the name {segment.name} is taken")
            taken.append(segment.name)
            unknown = sorted(set(segment.country_groups) - set(self.country_groups))
            if unknown:
                raise ValueError(f"{segment.name}: there is no country group {unknown[0]}")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Rules, then contextual segments: what a membership is told of, in its order."""
        return (*RULES, *(segment.name for segment in self.contextual))

    @cached_property
    def currency_key(self) -> int:
        """The key of `currency`, as orders carry it; 0 where there is none."""
        return 0 if self.currency is None else key_of(self.currency)

    @cached_property
    def titles(self) -> dict[str, str]:
        """The titles for people, by name."""
        return TITLES | {segment.name: segment.title for segment in self.contextual}

    @cached_property
    def countries(self) -> dict[str, frozenset[str]]:
        """The countries of each contextual segment; empty where any will do."""
        return {
            segment.name: frozenset(segment.countries).union(
                *(self.country_groups[group] for group in segment.country_groups)
            )
            for segment in self.contextual
        }

    def as_bytes(self) -> bytes:
        """The one form in which it is written."""
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, source: str) -> "SegmentConfig":
        """What `content` says; UserError naming `source`, the field and what is wrong with it."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{source}: {f'{where}: ' if where else ''}{first['msg']}") from None


def microseconds(days: float) -> int:
    """`days` in microseconds, so that a condition begins and ends at one exact moment."""
    return round(days * DAY_US)


DEFAULT: Final = SegmentConfig()
