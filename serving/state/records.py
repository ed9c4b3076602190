"""Events as a log keeps them: an opaque body under a key that all events of one subject share."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from contract.event_versions import read_stored
from contract.events import Event

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """One event to be kept."""

    event_id: bytes
    key: bytes  # what a log may be partitioned by; it need not say who the subject is
    body: str | bytes


class Codec(Protocol):
    """How events become records and come back."""

    def refresh(self) -> None:
        """Notice who was erased; before a batch is encoded, or decoded once its records are at
        hand."""
        ...

    def fetch(self, events: Iterable[Event]) -> None:
        """Look up at once what encoding these needs; one by one would do as well."""
        ...

    def encode(self, event: Event) -> Record | None:
        """`event` as it is kept, None when its subject is erased: then it is not to be written."""
        ...

    def all_held(self, records: Iterable[Record | None]) -> bool:
        """Whether the subjects of all `records` are still there, as of now."""
        ...

    def decode(self, body: str | bytes) -> Event | None:
        """The event in `body`, of any schema version so far; None when nobody can read it any
        more. Raises ValueError when it is damaged. May be called from any thread."""
        ...

    def keys_of(self, subject_ids: Sequence[str]) -> list[bytes]:
        """The record keys of those subjects that are there."""
        ...


class PlainCodec:
    """Bodies as JSON, by the subject's own id: for measuring what encryption costs, and for tests
    of a log alone. A gateway has `serving.state.sealing.SealedCodec`."""

    def refresh(self) -> None:
        """There is nothing to notice."""

    def fetch(self, events: Iterable[Event]) -> None:
        """There is nothing to look up."""

    def encode(self, event: Event) -> Record | None:
        body = event.model_dump_json(exclude_none=True)
        return Record(event.event_id.bytes, event.subject_id.bytes, body)

    def all_held(self, records: Iterable[Record | None]) -> bool:
        return True

    def decode(self, body: str | bytes) -> Event | None:
        return read_stored(body)

    def keys_of(self, subject_ids: Sequence[str]) -> list[bytes]:
        return [UUID(subject_id).bytes for subject_id in subject_ids]


def decoded(codec: Codec, body: str | bytes) -> Event | None:
    """As `codec.decode`; an event that is damaged, or of a version that only a newer gateway reads,
    is passed over and told, so that it does not keep all others from being read."""
    try:
        return codec.decode(body)
    except ValueError as error:
        log.error("an event of the log can not be read: %s", type(error).__name__)
        return None
