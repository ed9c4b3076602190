"""Encryption at rest: what is written about a subject is encrypted with AES-256-GCM under a key of
that subject's own, so that destroying the key makes all of it unreadable, wherever it lies.

The body of a record, whatever log it is in: one byte for its form, the subject's log key (16), the
event id (16), a random nonce (12), the encrypted JSON with its tag. Form, event id and subject are
bound to it as associated data. The log key is a random name, also the key of a Kafka record: only
the control store knows whose it is, and forgets it with the data key.
"""

from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contract.event_versions import read_stored
from contract.events import Event
from serving.random_pieces import random_piece
from serving.state.control_records import SubjectKey
from serving.state.control_store import ControlStore
from serving.state.records import Record

FORM = b"\x01"
_LOG_KEY = slice(1, 17)
_EVENT_ID = slice(17, 33)
_HEADER = 33
_NONCE_BYTES = 12
_MOST_CACHED = 50_000


class Tampered(ValueError):  # noqa: N818 - it names what was found
    """The bytes are not those that were written for this event or subject."""


class HeldKey:
    """A subject's key, ready to be used."""

    __slots__ = ("_cipher", "log_key", "subject", "subject_id")

    def __init__(self, key: SubjectKey) -> None:
        self.subject_id = key.subject_id
        self.log_key = key.log_key
        self.subject = UUID(key.subject_id).bytes
        self._cipher = AESGCM(key.data_key)

    def seal(self, content: bytes, bound_to: bytes) -> bytes:
        """Nonce and `content` encrypted, bound to the subject and to `bound_to`."""
        nonce = random_piece()[:_NONCE_BYTES]
        return nonce + self._cipher.encrypt(nonce, content, FORM + bound_to + self.subject)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """What `seal` hid. Raises Tampered."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, FORM + bound_to + self.subject)
        except (InvalidTag, ValueError):
            raise Tampered("the bytes were changed since they were written") from None


class SubjectKeys:
    """Keys of subjects, unwrapped once and kept until somebody is erased. From any thread."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._lock = Lock()
        self._held: dict[str | UUID, HeldKey] = {}  # by their ids, in either form
        self._by_log_key: dict[bytes, HeldKey | None] = {}
        self._erasures = -1
        self._batch, self._seen = 0, 0  # the last one that began, and that all keys are known of

    def refresh(self) -> None:
        """Let go of everything if somebody was erased since, by whatever process. Before a batch,
        once its records are at hand."""
        erasures = self._control.erasures()
        with self._lock:
            self._batch += 1
            if erasures != self._erasures or len(self._by_log_key) > _MOST_CACHED:
                self._held.clear()
                self._by_log_key.clear()
                self._erasures = erasures

    def fetch(self, subject_ids: Iterable[UUID]) -> None:
        """Take in the keys of all of these in one read: each read hands the interpreter to other
        threads and has to win it back."""
        missing = {str(one): one for one in subject_ids if one not in self._held}
        if not missing:
            return
        with self._lock:
            for key in self._control.keys_of(tuple(missing)):
                held = HeldKey(key)
                self._held[missing[key.subject_id]] = self._by_log_key[key.log_key] = held

    def of(self, subject_id: str | UUID) -> HeldKey | None:
        """The key of a subject, None once it is erased. Call `refresh` before a batch."""
        held = self._held.get(subject_id)
        if held is not None:
            return held
        with self._lock:
            key = self._control.subject_key(str(subject_id))
            if key is None:
                return None
            held = self._held[subject_id] = self._by_log_key[key.log_key] = HeldKey(key)
            return held

    def by_log_key(self, log_key: bytes) -> HeldKey | None:
        """The same by the name that the log knows, for a record of the batch. Another gateway may
        have made the subject a moment ago, so where there is no such key here all that was written
        until now is looked at first, which may take a while. Raises StoreError."""
        try:
            return self._by_log_key[log_key]
        except KeyError:
            pass
        held = self._looked_up(log_key)
        if held is None:
            batch = self._batch
            if self._seen < batch:  # not while the lock is held: others would wait as long
                self._control.see_all()
                self._seen = batch
            held = self._looked_up(log_key)
            if held is None:
                self._by_log_key[log_key] = None
        return held

    def holds(self, log_key: bytes) -> bool:
        """Whether that key is there, as far as is known without asking anybody."""
        return (self._by_log_key.get(log_key) or self._looked_up(log_key)) is not None

    def _looked_up(self, log_key: bytes) -> HeldKey | None:
        with self._lock:
            key = self._control.subject_key_by_log_key(log_key)
            if key is None:
                return None
            held = self._held[key.subject_id] = self._by_log_key[log_key] = HeldKey(key)
            return held

    def erased(self, subject_ids: Iterable[str]) -> list[str]:
        """Those of these subjects that are gone by now."""
        self.refresh()
        return [one for one in subject_ids if self.of(one) is None]

    def nobody(self, subject_ids: Iterable[str]) -> set[str]:
        """The same of very many. May be asked from any thread."""
        return set(subject_ids).difference(self._control.subject_ids())

    def of_subjects(self, subject_ids: Iterable[str]) -> Iterator[HeldKey]:
        """The keys that are there of many subjects; they are not kept."""
        return (HeldKey(key) for key in self._control.subject_keys(subject_ids=subject_ids))

    def of_log_keys(self, log_keys: Iterable[bytes]) -> Iterator[HeldKey]:
        """The same by log key."""
        return (HeldKey(key) for key in self._control.subject_keys(log_keys=log_keys))


class SealedCodec:
    """The `Codec` of every gateway."""

    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys

    def refresh(self) -> None:
        self._keys.refresh()

    def fetch(self, events: Iterable[Event]) -> None:
        self._keys.fetch(event.subject_id for event in events)

    def encode(self, event: Event) -> Record | None:
        key = self._keys.of(event.subject_id)
        if key is None:
            return None
        event_id = event.event_id.bytes
        content = Event.__pydantic_serializer__.to_json(event, exclude_none=True)
        header = FORM + key.log_key + event_id
        return Record(event_id, key.log_key, header + key.seal(content, event_id))

    def all_held(self, records: Iterable[Record | None]) -> bool:
        self._keys.refresh()
        wanted = {record.key for record in records if record is not None}
        return all(map(self._keys.holds, wanted))

    def decode(self, body: str | bytes) -> Event | None:
        if isinstance(body, str) or body[:1] != FORM or len(body) < _HEADER:
            raise Tampered("not a sealed event")
        key = self._keys.by_log_key(body[_LOG_KEY])
        if key is None:
            return None
        return read_stored(key.open(body[_HEADER:], body[_EVENT_ID]))

    def keys_of(self, subject_ids: Sequence[str]) -> list[bytes]:
        self._keys.refresh()
        return [held.log_key for one in subject_ids if (held := self._keys.of(one)) is not None]
