"""Accepting events: consent -> pseudonym -> redaction -> durable append -> features."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal, Protocol
from uuid import UUID

from contract.clock import Clock
from contract.consent import allows, may_store_behaviour, redact
from contract.events import ClientEvent, Event, EventItem, as_stored, honoured_time, unchecked
from serving.ingest.subjects import Recognised, Source, Subjects
from serving.state.event_log import Appended, EventLog, Position
from serving.state.feature_store import FeatureStore

Outcome = Literal["accepted", "duplicate", "no_consent"]
# Who is erased while their events are on the way has consented to nothing.
_OUTCOMES: dict[Appended, Outcome] = {
    "accepted": "accepted",
    "duplicate": "duplicate",
    "erased": "no_consent",
}

CategoryOf = Callable[[str], str | None]

_CATEGORISED = frozenset({"view_item", "select_item"})
# A large batch gives way to waiting checkouts after this many events.
_BREATH = 32


@dataclass(frozen=True, slots=True)
class _Known:
    """Of whom a batch speaks: None when nothing of theirs may be stored, and what is in effect."""

    subject_id: UUID | None
    purposes: frozenset[str]
    written: tuple[str, ...]  # the same, as it stands in their events
    personal: bool  # nothing has to be taken out of them


class TracksPosition(FeatureStore, Protocol):
    """A feature store that notes how far the log has been applied."""

    position: Position


class Ingest:
    """The one way in which behaviour is written. `features` hear of every event before it is
    answered; without them a `FeatureFeed` follows the log."""

    def __init__(
        self,
        subjects: Subjects,
        event_log: EventLog,
        features: TracksPosition | None,
        clock: Clock,
        category: CategoryOf = lambda item_id: None,
    ) -> None:
        """`category`: of an item of the catalogue, for views that do not say it."""
        self._subjects = subjects
        self._log = event_log
        self._features = features
        self._clock = clock
        self._category = category
        self._open: dict[object, Position] = {}
        self._writing: set[asyncio.Task[list[Outcome]]] = set()

    async def accept(
        self, events: Sequence[ClientEvent], *, gpc: bool, source: Source = "request"
    ) -> list[Outcome]:
        """What became of each event; those accepted are durable. Raises StoreError: none is."""
        kept: list[Event] = []
        places: list[int] = []
        now = self._clock.now()
        who: dict[object, _Known] = {}
        keys = list(map(_speaks_of, events))
        ahead = await self._recognised(dict(zip(keys, events, strict=True)), gpc, source)
        for place, (key, event) in enumerate(zip(keys, events, strict=True)):
            if place % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            known = who.get(key)
            if known is None:
                found = ahead.get(key)
                if found is None:
                    (found,) = self._subjects.recognise_all([event], gpc=gpc, source=source)
                known = await self._known(found)
                if found.unsettled:  # what was just recorded counts for the rest of the batch
                    ahead.clear()
                    who.clear()
                who[key] = known
            if known.subject_id is not None:
                kept.append(self._as_stored(event, known, known.subject_id, now))
                places.append(place)
        outcomes: list[Outcome] = ["no_consent"] * len(events)
        # A caller that goes away must not leave events in the log that features never saw.
        written = await asyncio.shield(self._start_writing(kept))
        for place, outcome in zip(places, written, strict=True):
            outcomes[place] = outcome
        return outcomes

    async def take_back(
        self, events: Sequence[ClientEvent], *, gpc: bool, source: Source = "request"
    ) -> None:
        """Record what `events` say no to, and nothing else of them. Raises StoreError."""
        noes = [one for one in events if one.consent and not all(one.consent.values())]
        told = await self._recognised({_speaks_of(one): one for one in noes}, gpc, source)
        for found in told.values():
            await self._subjects.take_back(found)

    def _start_writing(self, events: list[Event]) -> asyncio.Task[list[Outcome]]:
        task = asyncio.create_task(self._write(events))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def drain(self) -> None:
        """Wait until nothing is being written any more."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _recognised(
        self, asked: dict[object, ClientEvent], gpc: bool, source: Source
    ) -> dict[object, Recognised]:
        """Whom events speak of, by what they say of it. To ask of many at once is a fraction of
        the work; that it may have changed by the time they are written is looked at then."""
        found: dict[object, Recognised] = {}
        waiting = iter(asked.items())
        while some := dict(islice(waiting, _BREATH)):
            if found:
                await asyncio.sleep(0)
            told = self._subjects.recognise_all([*some.values()], gpc=gpc, source=source)
            found |= zip(some, told, strict=True)
        return found

    async def _known(self, found: Recognised) -> _Known:
        """Who that is, as far as their events may be stored."""
        subject, purposes = None, found.purposes
        if found.unsettled or may_store_behaviour(purposes):
            settled = await self._subjects.settle(found)
            subject = None if settled is None else UUID(settled)
        return _Known(
            subject, purposes, tuple(sorted(purposes)), allows(purposes, "personalization")
        )

    def _as_stored(
        self, event: ClientEvent, known: _Known, subject_id: UUID, now: datetime
    ) -> Event:
        """`event` under its pseudonym, as it may be written."""
        items = event.items
        if items and event.event_name in _CATEGORISED:
            items = tuple(map(self._categorised, items))
        stored = as_stored(
            event,
            occurred_at=honoured_time(event.occurred_at, now),
            received_at=now,
            subject_id=subject_id,
            purposes=known.written,
            items=items,
        )
        if known.personal:
            return stored
        redacted = redact(stored, known.purposes)
        assert redacted is not None  # otherwise there were no subject
        return redacted

    def _categorised(self, item: EventItem) -> EventItem:
        """`item` with its category, written down with the event: what is replayed later must not
        depend on the catalogue of that day."""
        if item.item_category is not None:
            return item
        category = self._category(item.item_id)
        if category is None:
            return item
        return unchecked(EventItem, item.__dict__ | {"item_category": category})

    async def _write(self, events: list[Event]) -> list[Outcome]:
        """What became of `events`, as far as they are still agreed to at this moment."""
        if not events:
            return []
        agreed = self._subjects.as_agreed(events)
        kept = [event for event in agreed if event is not None]
        written = iter(await self._append(kept) if kept else [])
        return ["no_consent" if event is None else next(written) for event in agreed]

    async def _append(self, events: list[Event]) -> list[Outcome]:
        if self._features is None:
            return [_OUTCOMES[answer] for answer in await self._log.append(events)]
        return await self._append_and_apply(events, self._features)

    async def _append_and_apply(
        self, events: list[Event], features: TracksPosition
    ) -> list[Outcome]:
        token = object()
        self._open[token] = self._log.last_position
        try:
            answers = await self._log.append(events)
            told = zip(events, answers, strict=True)
            await features.absorb([event for event, answer in told if answer == "accepted"])
        finally:
            del self._open[token]
        # Whatever another request has appended but not applied yet lies after where it began.
        last = self._log.last_position
        features.position = min(self._open.values(), key=_number, default=last)
        return [_OUTCOMES[answer] for answer in answers]


def _speaks_of(event: ClientEvent) -> object:
    """All that an event says of whose it is and what they agree to."""
    said = None if event.consent is None else tuple(event.consent.items())
    return event.visitor_id, event.user_id, said, event.gpc


def _number(position: Position) -> int:
    # Partitioned logs are followed by a feed.
    assert isinstance(position, int)
    return position
