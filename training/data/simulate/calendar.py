"""When visits begin: days and hours of the shopper's own clock, turned into UTC."""

from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from contract.clock import DAY_US, MICROSECONDS
from contract.errors import UserError
from training.data.simulate.draws import Generator, Ints, choose, cumulative
from training.data.simulate.world import World

_HOUR_US = 3600 * MICROSECONDS
_EPOCH = date(1970, 1, 1)


def draw_starts(
    rng: Generator, world: World, start: date, num_days: int, region: Ints
) -> tuple[Ints, Ints]:
    """For each visit from a `region`: UTC microseconds, and the day counted from `start`.

    Raises UserError when the world has no traffic on any of these weekdays.
    """
    weekdays = [(start.weekday() + day) % 7 for day in range(num_days)]
    by_day = [world.rhythm.weekdays[weekday] for weekday in weekdays]
    if sum(by_day) <= 0:
        raise UserError("rhythm.weekdays: nobody shops on any of the days asked for")
    first = np.zeros(len(region), np.int64)
    day = choose(rng, cumulative(by_day), num_days, first)
    hour = choose(rng, cumulative(world.rhythm.hours), 24, first)
    within_us = (rng.random(len(region)) * _HOUR_US).astype(np.int64)
    zones = [home.timezone for home in world.regions]
    offset_us = np.array([_offsets_us(zone, start, num_days) for zone in zones])
    local_us = (start - _EPOCH).days * DAY_US + day * DAY_US + hour * _HOUR_US + within_us
    return local_us - offset_us[region, day * 24 + hour], day


@lru_cache(maxsize=64)
def _offsets_us(zone: str, start: date, num_days: int) -> tuple[int, ...]:
    """What a zone's clock is ahead of UTC, for each hour of its own days."""
    home = ZoneInfo(zone)
    midnight = datetime(start.year, start.month, start.day)
    offsets = []
    for hour in range(24 * num_days):
        ahead = (midnight + timedelta(hours=hour)).replace(tzinfo=home).utcoffset()
        assert ahead is not None  # every ZoneInfo has an offset at every time
        offsets.append(int(ahead.total_seconds()) * MICROSECONDS)
    return tuple(offsets)
