"""What a shopper agreed to, and what follows from it for a write and for a read."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from contract.events import Event
from contract.keyed_hash import KeyedHash

Purpose = Literal["personalization", "analytics", "offers"]
PURPOSES: frozenset[str] = frozenset(get_args(Purpose))
NOTHING: frozenset[str] = frozenset()


def in_effect(
    stored: Iterable[str] | None, requested: Iterable[str] | None, *, gpc: bool
) -> frozenset[str]:
    """The purposes in effect: stored AND requested AND no Global Privacy Control.

    `None` means that nothing was said: with nothing stored the request's word counts, with nothing
    requested the stored one does, with neither the answer is nothing (off by default). That a
    request's no also takes back what is stored is said by `taken_back`.
    """
    if gpc:
        return NOTHING
    if stored is None:
        return frozenset(requested or ()) & PURPOSES
    if requested is None:
        return frozenset(stored) & PURPOSES
    return frozenset(stored) & frozenset(requested) & PURPOSES


def taken_back(agreed: frozenset[str], said: Mapping[Purpose, bool] | None) -> frozenset[str]:
    """The purposes of `agreed` that a request says no to, so that withdrawing is as easy as giving.
    One that it does not name stays agreed to."""
    return agreed & {name for name, word in (said or {}).items() if not word}


def allows(purposes: Iterable[str], purpose: Purpose) -> bool:
    """Whether `purpose` is among the purposes in effect."""
    return purpose in purposes


def may_store_behaviour(purposes: Iterable[str]) -> bool:
    """Behaviour is stored only under `analytics` or `personalization`."""
    held = frozenset(purposes)
    return "analytics" in held or "personalization" in held


def redact(event: Event, purposes: frozenset[str]) -> Event | None:
    """`event` as it may be written under `purposes`, or None when it must be dropped.

    Without `personalization` the search words and the region, the two free-form hints at a
    person, are taken out; the event then serves counting only.
    """
    if not may_store_behaviour(purposes):
        return None
    written = tuple(sorted(purposes))
    kept = event if event.purposes == written else event.model_copy(update={"purposes": written})
    if "personalization" in purposes:
        return kept
    context = kept.context.model_copy(update={"region": None}) if kept.context else None
    return kept.model_copy(update={"search_term": None, "context": context})


def pseudonymise(raw_id: str, kind: Literal["visitor", "user"], key: KeyedHash) -> str:
    """HMAC-SHA-256 of a raw id under `key`, 64 hexadecimal digits.

    It is only ever a look-up key in the subjects table; the `subject_id` behind it is random.
    """
    return key.digest(f"{kind}:{raw_id}".encode()).hex()
