"""The injected clock. `SystemClock` is the one place in the product that reads the wall clock;
everything else is handed a `Clock`, so that 2017 data can be served at its own time and tests
decide what time it is."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

MICROSECONDS = 1_000_000
DAY_US = 86_400 * MICROSECONDS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Anything that can say what time it is."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class AsOfClock:
    """Starts at `start` and runs on at the normal speed: `--as-of`."""

    start: datetime
    _began: float = field(default_factory=time.monotonic)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=time.monotonic() - self._began)

    def move_to(self, moment: datetime) -> None:
        """Go on from `moment`, where that lies ahead: simulated days pass in seconds."""
        ahead = moment - self.now()
        if ahead > timedelta(0):
            self.start += ahead


@dataclass
class FixedClock:
    """Stands still until it is moved by hand; for tests and for replay."""

    at: datetime

    def now(self) -> datetime:
        return self.at


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 in UTC; a naive `moment` is a `ValueError`."""
    if moment.tzinfo is None:
        raise ValueError(f"time {moment.isoformat()} has no zone; send UTC, such as ...Z")
    return (moment - _EPOCH) // _ONE_MICROSECOND


# A day from the ends of the calendar, so that every zone has these moments.
_FIRST_US = to_us(datetime.min.replace(tzinfo=UTC)) + DAY_US
_LAST_US = to_us(datetime.max.replace(tzinfo=UTC)) - DAY_US


def from_us(microseconds: int) -> datetime:
    """The aware UTC time of `microseconds` since 1970, within the calendar."""
    return _EPOCH + timedelta(microseconds=min(max(int(microseconds), _FIRST_US), _LAST_US))
