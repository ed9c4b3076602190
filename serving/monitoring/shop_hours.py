"""The shop's own clock over the sums of UTC: which hour of which day a bucket belongs to. A day has
24 hours here on every day, so that ten o'clock is ten o'clock before and after the clocks change:
the hour that is left out in spring is empty, the one that comes twice in autumn holds both.

T buckets, H hours.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from contract.clock import DAY_US, from_us, to_us
from serving.monitoring.kpis import HOUR, MINUTES_5, Floats, Sums, Times

_UTC = ZoneInfo("UTC")


@dataclass(frozen=True)
class ShopHours:
    """Of a shop in `zone`. Moments are microseconds since 1970 in UTC."""

    zone: ZoneInfo = _UTC

    def midnight_us(self, at_us: int, days: int = 0) -> int:
        """When the shop's day of that moment begins, or the one so many days later."""
        return to_us(datetime.combine(self._day(at_us) + timedelta(days=days), time(), self.zone))

    def days_between(self, since_us: int, until_us: int) -> int:
        """How many midnights the second moment's day is after the first one's."""
        return (self._day(until_us) - self._day(since_us)).days

    def places(self, at_us: Times, origin_us: int) -> Floats:
        """[T], how many hours by the wall clock those moments are after the beginning of the day of
        `origin_us`."""
        offset_us = [self._offset_us(int(one)) for one in at_us]
        begin_us = (origin_us + self._offset_us(origin_us)) // DAY_US * DAY_US
        found: Floats = (at_us + np.array(offset_us, dtype=np.int64) - begin_us) / HOUR
        return found

    def grain_of(self, start_us: int, end_us: int) -> int:
        """The widest buckets that no hour of the shop's clock cuts in two."""
        moments = range(start_us, end_us + DAY_US, DAY_US)
        whole = all(self._offset_us(one) % HOUR == 0 for one in moments)
        return HOUR if whole else MINUTES_5

    def by_hour(self, sums: Sums, grain: int, days: int) -> tuple[Floats, Floats]:
        """Counters [H, C] of `days` from a midnight on, of those in buckets of `grain` from there
        on, and how many hours each of them has lasted [H]."""
        place = self.places(sums.start_us, int(sums.start_us[0])).astype(np.int64)
        counters = np.zeros((days * 24, sums.counters.shape[1]))
        np.add.at(counters, place, sums.counters)
        lasted: Floats = np.zeros(days * 24)
        np.add.at(lasted, place, grain / HOUR)
        return counters, lasted

    def _day(self, at_us: int) -> date:
        return from_us(at_us).astimezone(self.zone).date()

    def _offset_us(self, at_us: int) -> int:
        ahead = from_us(at_us).astimezone(self.zone).utcoffset()
        assert ahead is not None  # every ZoneInfo has one at every time
        return ahead // timedelta(microseconds=1)
