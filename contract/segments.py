"""Segments as pure functions: who the shopper is by behaviour, and in what context they shop."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from contract.clock import from_us
from contract.events import EVENT_TYPE, EventContext
from contract.features import SubjectView

_PURCHASE = EVENT_TYPE["purchase"]

SEGMENTS: tuple[str, ...] = (
    "unknown",
    "first_time",
    "repeat",
    "frequent",
    "lapsing",
    "large_baskets",
    "browsing",
    "mobile",
    "peak_hours",
    "weekend",
)


@dataclass(frozen=True)
class Thresholds:
    """Where the rule segments begin."""

    frequent_baskets: int = 24
    lapsing_days: float = 45.0
    large_basket_items: float = 15.0
    browsing_interactions: int = 3
    peak_from_hour: int = 17
    peak_until_hour: int = 20


THRESHOLDS = Thresholds()


def local_time(now_us: int, context: EventContext | None) -> datetime | None:
    """The shopper's local time, or None where the zone is not said or not known."""
    if context is None or context.timezone is None:
        return None
    try:
        return from_us(now_us).astimezone(ZoneInfo(context.timezone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def assign(
    view: SubjectView, context: EventContext | None, local: datetime | None
) -> npt.NDArray[np.float32]:
    """Membership in each of `SEGMENTS`, [10] of 0 or 1."""
    baskets, since, _gap, size = view.rhythm.tolist()
    views = len(view.interactions) - int((view.interactions["event_type"] == _PURCHASE).sum())
    limits = THRESHOLDS
    member = {
        "unknown": not view.known,
        "first_time": view.known and baskets == 0,
        "repeat": baskets >= 2,
        "frequent": baskets >= limits.frequent_baskets,
        "lapsing": baskets > 0 and since >= limits.lapsing_days,
        "large_baskets": size >= limits.large_basket_items,
        "browsing": views >= limits.browsing_interactions,
        "mobile": context is not None and context.device == "mobile",
        "peak_hours": local is not None
        and limits.peak_from_hour <= local.hour < limits.peak_until_hour,
        "weekend": local is not None and local.weekday() >= 5,
    }
    return np.array([member[name] for name in SEGMENTS], np.float32)


def names(membership: npt.NDArray[np.float32]) -> tuple[str, ...]:
    """The segments that `membership` [10] says the shopper is in."""
    return tuple(name for name, held in zip(SEGMENTS, membership, strict=True) if held)
