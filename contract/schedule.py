"""Where and when something holds that a shop plans ahead: between two moments, at some hours, on
some weekdays, in some places. The clock is always the server's; only the zone may be the shopper's.
"""

from datetime import datetime, timedelta
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    StringConstraints,
    model_validator,
)

from contract.clock import to_us
from contract.events import EventContext
from contract.segment_config import Hours, Weekday
from contract.segments import in_time, local_time
from contract.zones import Zone

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Region = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_QUARTER = timedelta(minutes=15)


class Schedule(BaseModel):
    """Everything that is named must hold; of a list, one member must.

    It begins at `valid_from` and is over at `valid_until`. `hours` and `weekdays` are local to
    `timezone` or, without it, to the shopper's own zone: who does not say where they are, or is in
    a zone that is not known, is outside of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    hours: Hours | None = None
    weekdays: tuple[Weekday, ...] = ()
    timezone: Zone | None = None
    countries: tuple[Country, ...] = ()
    regions: tuple[Region, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_from >= self.valid_until:
            raise ValueError("valid_until: must be after valid_from")
        return self

    @property
    def placed(self) -> bool:
        """Whether it matters where the shopper is, if only for their clock."""
        timed = self.hours is not None or bool(self.weekdays)
        return bool(self.countries or self.regions) or (timed and self.timezone is None)

    def begun(self, now: datetime) -> bool:
        """Whether its beginning is past."""
        return self.valid_from is None or now >= self.valid_from

    def over(self, now: datetime) -> bool:
        """Whether its end is past."""
        return self.valid_until is not None and now >= self.valid_until

    def here_and_now(self, now: datetime, context: EventContext | None) -> bool:
        """Whether place, hour and weekday are right."""
        if self.countries and (context is None or context.country not in self.countries):
            return False
        if self.regions and (context is None or context.region not in self.regions):
            return False
        if self.hours is None and not self.weekdays:
            return True
        local = self._local(now, context)
        return local is not None and in_time(self, local)

    def holds(self, now: datetime, context: EventContext | None) -> bool:
        """Whether all of it is right."""
        return self.begun(now) and not self.over(now) and self.here_and_now(now, context)

    def end_before(self, latest: datetime, now: datetime, context: EventContext | None) -> datetime:
        """When what holds `now` ends, or `latest`, whichever comes first."""
        end = latest if self.valid_until is None else min(latest, self.valid_until)
        if self.hours is None and not self.weekdays:
            return end
        local = self._local(now, context)
        assert local is not None, "it does not hold now"
        # Hours end with an hour of the local clock. Zones are whole quarters of an hour from UTC,
        # and one moves by half an hour when its summer ends.
        past = timedelta(
            minutes=local.minute % 15, seconds=local.second, microseconds=local.microsecond
        )
        turn = now + _QUARTER - past
        while turn < end:
            if not self.here_and_now(turn, context):
                return turn
            turn += _QUARTER
        return end

    def _local(self, now: datetime, context: EventContext | None) -> datetime | None:
        if self.timezone is not None:
            return now.astimezone(ZoneInfo(self.timezone))
        return local_time(to_us(now), context)
