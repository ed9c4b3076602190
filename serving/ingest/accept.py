"""Accepting events: consent -> pseudonym -> redaction -> durable append -> features."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import UUID

from contract.clock import Clock
from contract.consent import may_store_behaviour, redact
from contract.events import ClientEvent, Event, EventBody, EventItem, honoured_time
from serving.ingest.subjects import Recognised, Subjects
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
_BODY_FIELDS = tuple(EventBody.model_fields)
_BLANK = Event(
    event_id=UUID(int=0),
    event_name="page_view",
    occurred_at=datetime.fromtimestamp(0, UTC),
    received_at=datetime.fromtimestamp(0, UTC),
    subject_id=UUID(int=0),
    session_id="-",
)
# A large batch gives way to waiting checkouts after this many events.
_BREATH = 32


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

    async def accept(self, events: Sequence[ClientEvent], *, gpc: bool) -> list[Outcome]:
        """What became of each event; those accepted are durable. Raises StoreError: none is."""
        kept: list[tuple[int, Event]] = []
        who: dict[object, tuple[Recognised, UUID | None]] = {}
        for place, event in enumerate(events):
            if place % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            stored = await self._as_stored(event, who, gpc=gpc)
            if stored is not None:
                kept.append((place, stored))
        outcomes: list[Outcome] = ["no_consent"] * len(events)
        # A caller that goes away must not leave events in the log that features never saw.
        written = await asyncio.shield(self._start_writing([stored for _, stored in kept]))
        for (place, _), outcome in zip(kept, written, strict=True):
            outcomes[place] = outcome
        return outcomes

    def _start_writing(self, events: list[Event]) -> asyncio.Task[list[Outcome]]:
        task = asyncio.create_task(self._write(events))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def drain(self) -> None:
        """Wait until nothing is being written any more."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _as_stored(
        self, event: ClientEvent, who: dict[object, tuple[Recognised, UUID | None]], *, gpc: bool
    ) -> Event | None:
        """`event` under its pseudonym, or None when nothing may be stored."""
        said = None if event.consent is None else tuple(sorted(event.consent.items()))
        key = (event.visitor_id, event.user_id, said, event.gpc)
        if key not in who:
            found = self._subjects.recognise(
                event.visitor_id, event.user_id, event.consent, gpc=gpc or event.gpc
            )
            subject = None
            if may_store_behaviour(found.purposes):
                settled = await self._subjects.settle(found)
                subject = None if settled is None else UUID(settled)
                if found.unsettled:
                    who.clear()  # what was just recorded counts for the rest of the batch
            who[key] = found, subject
        found, subject_id = who[key]
        if subject_id is None:
            return None
        now = self._clock.now()
        sent = event.__dict__
        written = {name: sent[name] for name in _BODY_FIELDS}
        written["occurred_at"] = honoured_time(event.occurred_at, now)
        written |= {"received_at": now, "subject_id": subject_id}
        written["purposes"] = tuple(sorted(found.purposes))
        if event.event_name in _CATEGORISED:
            written["items"] = tuple(map(self._categorised, event.items))
        # Every field has been validated in the event as it came. A copy with all of them changed is
        # the quickest way that pydantic has to make a model of them.
        stored = _BLANK.model_copy(update=written)
        return redact(stored, found.purposes)

    def _categorised(self, item: EventItem) -> EventItem:
        """`item` with its category, written down with the event: what is replayed later must not
        depend on the catalogue of that day."""
        if item.item_category is not None:
            return item
        category = self._category(item.item_id)
        return item if category is None else item.model_copy(update={"item_category": category})

    async def _write(self, events: list[Event]) -> list[Outcome]:
        if not events:
            return []
        if self._features is None:
            return [_OUTCOMES[answer] for answer in await self._log.append(events)]
        return await self._write_and_apply(events, self._features)

    async def _write_and_apply(
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


def _number(position: Position) -> int:
    # Partitioned logs are followed by a feed.
    assert isinstance(position, int)
    return position
