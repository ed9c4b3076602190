"""From raw ids and a word of consent to a subject and the purposes in effect. Raw ids end here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from contract.clock import Clock
from contract.consent import NOTHING, Purpose, in_effect, may_store_behaviour, redact, taken_back
from contract.events import ClientEvent, Event
from serving.ingest.gathered import GatheredLookUps
from serving.state.control_records import Consent, Identity
from serving.state.control_store import ControlStore
from serving.state.secrets import Pseudonyms, Secrets


@dataclass(frozen=True)
class Recognised:
    """Who a request speaks of and what may be done.

    `subject_id` is None unless behaviour may be stored and the subject is already known;
    `unsettled` says that `settle` has something to write.
    """

    subject_id: str | None
    purposes: frozenset[str]
    unsettled: bool
    joins_history: bool
    visitor: Pseudonyms
    user: Pseudonyms | None
    consent: Consent | None  # to be recorded, because nothing was stored yet
    histories: tuple[str, ...] = ()  # of `subject_id`, as of now
    refused: Consent | None = None  # what was agreed to and is taken back by this request


# Where a word was said that came with a request: by a shop's server, or in a page, where anybody
# can write it. Requests name no wording, so the record has none: nothing is made up.
Source = Literal["request", "page"]


class Subjects:
    """Recognises subjects; writes one only when consent allows it to be remembered."""

    def __init__(self, control: ControlStore, secrets: Secrets, clock: Clock) -> None:
        self._control = control
        self._secrets = secrets
        self._clock = clock
        self._gathered = GatheredLookUps(control)

    def pseudonyms(
        self, visitor_id: str, user_id: str | None
    ) -> tuple[Pseudonyms, Pseudonyms | None]:
        """The look-up keys of both ids."""
        user = None if user_id is None else self._secrets.pseudonyms(user_id, "user")
        return self._secrets.pseudonyms(visitor_id, "visitor"), user

    def recognise(
        self,
        visitor_id: str,
        user_id: str | None,
        consent: Mapping[Purpose, bool] | None,
        *,
        gpc: bool,
        source: Source = "request",
    ) -> Recognised:
        """Who this is and which purposes are in effect; writes nothing. Raises StoreError."""
        named = self.pseudonyms(visitor_id, user_id)
        return self._recognised(named, self._control.look_up(*named), consent, gpc, source)

    async def recognise_beside(
        self,
        visitor_id: str,
        user_id: str | None,
        consent: Mapping[Purpose, bool] | None,
        *,
        gpc: bool,
        source: Source = "request",
        others: bool,
    ) -> Recognised:
        """As `recognise`; where `others` are about to ask as well, by one look-up for all of them.
        Who is alone does not wait."""
        if not (others or self._gathered.under_way):
            return self.recognise(visitor_id, user_id, consent, gpc=gpc, source=source)
        named = self.pseudonyms(visitor_id, user_id)
        return self._recognised(named, await self._gathered.look_up(named), consent, gpc, source)

    def recognise_all(
        self, events: Sequence[ClientEvent], *, gpc: bool, source: Source = "request"
    ) -> list[Recognised]:
        """The same for whoever each of `events` speaks of."""
        named = [self.pseudonyms(event.visitor_id, event.user_id) for event in events]
        told = zip(events, named, self._control.look_up_all(named), strict=True)
        return [
            self._recognised(names, identity, event.consent, gpc or event.gpc, source)
            for event, names, identity in told
        ]

    def _recognised(
        self,
        named: tuple[Pseudonyms, Pseudonyms | None],
        identity: Identity,
        consent: Mapping[Purpose, bool] | None,
        gpc: bool,
        source: Source,
    ) -> Recognised:
        visitor, user = named
        stored = None if identity.consent is None else identity.consent.purposes
        requested = None if consent is None else {name for name, said in consent.items() if said}
        purposes = in_effect(stored, requested, gpc=gpc)
        refused = None
        if no := taken_back(identity.agreed, consent):
            refused = Consent(no, self._clock.now(), source)
        if not may_store_behaviour(purposes):
            unsettled = refused is not None
            return Recognised(None, purposes, unsettled, False, visitor, user, None, (), refused)
        first_word = None
        if stored is None:
            first_word = Consent(purposes, self._clock.now(), source)
        return Recognised(
            identity.subject_id,
            purposes,
            not identity.settled or first_word is not None or refused is not None,
            identity.joins_history,
            visitor,
            user,
            first_word,
            identity.histories,
            refused,
        )

    async def settle(self, who: Recognised) -> str | None:
        """Write what is missing of subject, link and consent, and what is taken back, durably;
        returns the subject, or None when behaviour may not be stored, or consent was withdrawn, or
        the subject erased, since it was recognised. Raises StoreError."""
        await self.take_back(who)
        if not may_store_behaviour(who.purposes):
            return None
        if who.subject_id is not None and not who.unsettled:
            return who.subject_id
        identity = await self._control.establish(who.visitor, who.user, who.consent)
        held = None if identity.consent is None else identity.consent.purposes
        if held is None or not who.purposes <= held:
            return None
        return identity.subject_id

    async def take_back(self, who: Recognised) -> None:
        """Write down, durably, what they said no to. Raises StoreError."""
        if who.refused is not None:
            await self._control.restrict(who.visitor, who.user, who.refused)

    def as_agreed(self, events: Sequence[Event]) -> list[Event | None]:
        """Each event as it may be written now, None where no longer: what was agreed to when it
        came may be withdrawn by the time it is written. One read for all. Raises StoreError."""
        subjects = {one: str(one) for one in {event.subject_id for event in events}}
        found = self._control.agreed_by(tuple(subjects.values()))
        agreed = {one: found.get(name, NOTHING) for one, name in subjects.items()}
        return [_narrowed(event, agreed[event.subject_id]) for event in events]


def _narrowed(event: Event, agreed: frozenset[str]) -> Event | None:
    if agreed.issuperset(event.purposes):
        return event
    return redact(event, agreed.intersection(event.purposes))
