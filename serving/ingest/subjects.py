"""From raw ids and a word of consent to a subject and the purposes in effect. Raw ids end here."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.clock import Clock
from contract.consent import Purpose, in_effect, may_store_behaviour
from serving.state.control_store import Consent, ControlStore
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


class Subjects:
    """Recognises subjects; writes one only when consent allows it to be remembered."""

    def __init__(self, control: ControlStore, secrets: Secrets, clock: Clock) -> None:
        self._control = control
        self._secrets = secrets
        self._clock = clock

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
    ) -> Recognised:
        """Who this is and which purposes are in effect; writes nothing. Raises StoreError."""
        visitor, user = self.pseudonyms(visitor_id, user_id)
        identity = self._control.look_up(visitor, user)
        stored = None if identity.consent is None else identity.consent.purposes
        requested = None if consent is None else {name for name, said in consent.items() if said}
        purposes = in_effect(stored, requested, gpc=gpc)
        if not may_store_behaviour(purposes):
            return Recognised(None, purposes, False, False, visitor, user, None)
        first_word = None
        if stored is None:
            first_word = Consent(purposes, self._clock.now(), source="request")
        return Recognised(
            identity.subject_id,
            purposes,
            not identity.settled or first_word is not None,
            identity.joins_history,
            visitor,
            user,
            first_word,
            identity.histories,
        )

    async def settle(self, who: Recognised) -> str | None:
        """Write what is missing of subject, link and consent, durably; returns the subject, or None
        when consent was withdrawn, or the subject erased, since it was recognised.

        Only to be called when behaviour may be stored. Raises StoreError.
        """
        assert may_store_behaviour(who.purposes)
        if who.subject_id is not None and not who.unsettled:
            return who.subject_id
        identity = await self._control.establish(who.visitor, who.user, who.consent)
        held = None if identity.consent is None else identity.consent.purposes
        if held is None or not who.purposes <= held:
            return None
        return identity.subject_id
