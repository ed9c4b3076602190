"""The control store: who is who, what they agreed to, whose key is whose, and which writes were
already answered; also the key that a subject's data is encrypted under, and the audit log. It never
sees a raw visitor or user id, only their pseudonyms."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

from contract.catalogue import ItemChange
from contract.reviews import Finding, Review, Source, State
from serving.state.audit import GATEWAY, Actor, Entry, Head, Line
from serving.state.catalogue_changes import Patch
from serving.state.control_records import (
    ApiKey,
    Consent,
    Erased,
    Export,
    FactKeeper,
    Identity,
    ReviewMessage,
    StoredAnswer,
    SubjectKey,
    SubjectRecord,
)
from serving.state.documents import Document, Version
from serving.state.secrets import Pseudonyms


class ControlStore(Protocol):
    """Reads are quick and local, from any thread; writes are durable when they return. Of what
    another process wrote, only a revoked key may be seen up to `KEY_HELD_S` later.

    How a login joins two subjects: the visitor is linked to the user, and the user's subject is
    the identity of both from then on. Of what the two said about consent the newest word counts.
    What the visitor's subject did before stays under it and is read together with the user's
    (`histories`). A device shared by a second user links to that one from then on, but its earlier
    history stays with the first: it is never shown to another, and consent for it, its export and
    its erasure are the first one's.
    """

    @property
    def opened(self) -> bool:
        """False while it was not there since it was to be opened."""
        ...

    def look_up(self, visitor: Pseudonyms, user: Pseudonyms | None) -> Identity:
        """Who this is, writing nothing. Raises StoreError."""
        ...

    def look_up_all(self, who: Sequence[tuple[Pseudonyms, Pseudonyms | None]]) -> list[Identity]:
        """The same of many, at a fraction of the time."""
        ...

    async def establish(
        self, visitor: Pseudonyms, user: Pseudonyms | None, consent: Consent | None
    ) -> Identity:
        """Make what is missing of subject and link; `consent` is recorded if there is none."""
        ...

    def exists(self, subject_id: str) -> bool:
        """Whether it is a subject of this shop."""
        ...

    def histories(self, subject_id: str) -> tuple[str, ...]:
        """The subjects whose history is read as this one's, itself first."""
        ...

    def consent_of(self, subject_id: str) -> Consent | None:
        """The consent in force of whoever the subject belongs to."""
        ...

    def agreed_by(self, subject_ids: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """The purposes of the same for many, in one read; who said nothing is not there."""
        ...

    async def record_consent(self, subject_id: str, consent: Consent, by: Actor = GATEWAY) -> None:
        """Append a consent record of whoever the subject belongs to."""
        ...

    async def restrict(
        self, visitor: Pseudonyms, user: Pseudonyms | None, refused: Consent
    ) -> None:
        """Record that whoever speaks here agrees no longer to the purposes of `refused`. Does
        nothing where nothing was agreed to."""
        ...

    def subject_key(self, subject_id: str) -> SubjectKey | None:
        """The key of a subject's data, None once it is erased."""
        ...

    def subject_key_by_log_key(self, log_key: bytes) -> SubjectKey | None:
        """The same by the subject's name in the event log."""
        ...

    def keys_with_histories(self, subject_id: str) -> list[SubjectKey]:
        """The keys that are there of a subject, the own one first, and of those whose history is
        read as theirs, in one read."""
        ...

    def see_all(self) -> None:
        """See everything that any process has written until now; what other reads see may be a
        second old. It may take a while, so not on the loop's thread. Raises StoreError."""
        ...

    def keys_of(self, subject_ids: Sequence[str]) -> list[SubjectKey]:
        """The keys that are there of a few subjects, in one read."""
        ...

    def subject_keys(
        self, *, subject_ids: Iterable[str] = (), log_keys: Iterable[bytes] = ()
    ) -> Iterator[SubjectKey]:
        """The keys that are there of many subjects; may be read from another thread."""
        ...

    def person_of(self, subject_id: str) -> tuple[str, ...]:
        """All subjects that are one person with this one: links are followed both ways."""
        ...

    def record_of(self, subject_id: str) -> SubjectRecord | None:
        """Everything held here about exactly this subject."""
        ...

    def subject_ids(self) -> list[str]:
        """Every subject that is there."""
        ...

    def subjects_without_consent_since(self, before: datetime) -> list[str]:
        """Subjects that were made, and last said something about consent, before then."""
        ...

    async def erase(self, subject_id: str, by: Actor) -> Erased | None:
        """Forget the person, keys first, and write so in the audit log. None: there is no such
        subject."""
        ...

    def erasures(self) -> int:
        """Grows with every erasure by any process on this store."""
        ...

    def unfinished_erasures(self) -> tuple[bytes, ...]:
        """Log keys of erased subjects whose removal from the other stores was not reported yet."""
        ...

    async def finish_erasures(self, log_keys: Sequence[bytes]) -> None:
        """Note that nothing is left under `log_keys` elsewhere."""
        ...

    def erasures_kept(self) -> list[Erased]:
        """The erasures that are unfinished, and those whose receipt nobody has been given."""
        ...

    async def note_erasure(self, erased: Erased) -> None:
        """Keep how far it has come, if it is kept still."""
        ...

    async def drop_erasure(self, erasure_id: str) -> None:
        """Forget one that is finished."""
        ...

    def fact_keepers(self) -> list[FactKeeper]:
        """The workers that have said how far they are with removing facts of who was erased."""
        ...

    async def note_fact_keeper(self, keeper: FactKeeper) -> None:
        """One of them says so."""
        ...

    async def scrub(self, traces: Sequence[bytes]) -> bool:
        """Make sure that `traces` stand in none of the store's files any more, unused space
        included, and say whether that was reached; of files on another machine nobody can."""
        ...

    async def audit(self, entry: Entry) -> Line:
        """Write a line in the audit log."""
        ...

    def audit_log(self) -> tuple[list[Line], Head | None]:
        """All lines and the head, as of one moment."""
        ...

    def service_key(self, name: str) -> bytes:
        """A random key of the shop's own, drawn once: `audit`, `receipt` or `answers`."""
        ...

    def key_versions(self) -> dict[str, dict[str, int]]:
        """By table: how many keys hang on which master key."""
        ...

    async def rewrap(self, by: Actor) -> int:
        """Hang every key on the newest master key; returns how many. Raises UnknownMasterKey."""
        ...

    def exports(self) -> list[Export]:
        """The exports that are registered."""
        ...

    async def add_export(self, export: Export) -> None:
        """Register an export before its first file is written."""
        ...

    async def drop_export(self, export_id: str) -> None:
        """Forget an export that is gone."""
        ...

    async def let_go(self, audit_before: datetime, answers_before: datetime) -> tuple[int, int]:
        """Remove audit lines and kept answers of before then; returns how many of each."""
        ...

    def last_run(self, job: str) -> datetime | None:
        """When the job last ran on this store, on whichever gateway."""
        ...

    async def note_run(self, job: str, at: datetime) -> None:
        """It ran."""
        ...

    async def add_key(self, key: ApiKey, digest: str, by: Actor = GATEWAY) -> None:
        """Store a key by the SHA-256 of its secret."""
        ...

    def key_by_digest(self, digest: str) -> ApiKey | None:
        """The key with this secret's digest, unless revoked."""
        ...

    def key_by_id(self, key_id: str) -> ApiKey | None:
        """The key with this id, unless revoked."""
        ...

    def list_keys(self) -> list[ApiKey]:
        """All keys, the revoked ones too, oldest first."""
        ...

    async def revoke_key(self, key_id: str, at: datetime, by: Actor = GATEWAY) -> bool:
        """Whether there was such a key in force."""
        ...

    def answered(self, scope: str, since: datetime) -> StoredAnswer | None:
        """The answer given under `scope` (a digest of caller, route and key) since then."""
        ...

    async def remember_answer(
        self, scope: str, answer: StoredAnswer, at: datetime, expired: datetime
    ) -> None:
        """Keep an answer, and forget those given before `expired`."""
        ...

    async def change_items(self, patches: Sequence[tuple[str, Patch]], by: Actor = GATEWAY) -> int:
        """Lay what the shop says of items, by id, over what it said before; its number."""
        ...

    def items_changed_since(self, number: int) -> list[tuple[str, ItemChange, int]]:
        """Item id, what is said of it and the number of that, of all said after `number`."""
        ...

    async def put_document(
        self, name: str, body: str, expected: int | None, by: Actor, note: str = ""
    ) -> Version:
        """Write the JSON `body` as the next version of the document `name`, with an audit line.
        Raises DocumentConflict unless `expected` is the latest one (0: none yet; None: whichever
        it is)."""
        ...

    def document(self, name: str, version: int | None = None) -> Document | None:
        """The document at that version, without one the latest."""
        ...

    def document_history(
        self, name: str, before: int | None = None, limit: int = 50
    ) -> list[Version]:
        """Who wrote its versions, the newest first; `before`: below that number."""
        ...

    def document_versions(self) -> Mapping[str, int]:
        """The latest version of every document: what to follow them by."""
        ...

    def reviews(self, state: State | None = None, limit: int = 100) -> list[Review]:
        """The review items, in that state if one is named, the newest first."""
        ...

    def review(self, review_id: str) -> Review | None:
        """The review item with this id."""
        ...

    async def note_findings(
        self,
        source: Source,
        findings: Sequence[Finding],
        *,
        complete: bool = True,
        by: Actor = GATEWAY,
    ) -> list[Review]:
        """Take over what `source` finds now: each finding is one review item while it lasts.
        Returns the items that were opened or opened again. `complete`: what this source found
        before and does not find now has ended. ValueError: a finding is of another source."""
        ...

    async def move_review(
        self,
        review_id: str,
        to: Literal["acknowledged", "closed"],
        by: Actor,
        *,
        who: str = "",
        note: str = "",
    ) -> Review | None:
        """Acknowledge or close an item, with an audit line; doing it again changes nothing. None:
        there is no such item. ValueError: it is closed, so it can not be acknowledged."""
        ...

    def review_messages_due(self) -> bool:
        """Whether something of a review item is to be told outside."""
        ...

    async def take_review_message(self) -> ReviewMessage | None:
        """The next such message, which is the caller's for a while. What was done to an item
        earlier is always told first."""
        ...

    async def settle_review_message(
        self, message: ReviewMessage, problem: str | None = None, wait_s: float = 0.0
    ) -> bool:
        """It was told, or for a `problem` it is to be tried again, `wait_s` seconds later at the
        earliest; whether it is done with, because it was told or given up for its age."""
        ...

    def version(self) -> int:
        """Grows with every change of consent, link or key by any process on this store."""
        ...

    def close(self) -> None:
        """Finish what waits and let go of the files."""
        ...
