"""The control store: who is who, what they agreed to, whose key is whose, and which writes were
already answered. It never sees a raw visitor or user id, only their pseudonyms."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from contract.catalogue import ItemChange
from serving.state.catalogue_changes import Patch
from serving.state.secrets import Pseudonyms

Role = Literal["checkout", "collect", "admin"]
ROLES: tuple[Role, ...] = ("checkout", "collect", "admin")


@dataclass(frozen=True)
class Consent:
    """What a subject agreed to, with its proof: when, where it was said, under which wording."""

    purposes: frozenset[str]
    recorded_at: datetime
    source: str
    wording_version: str | None = None


@dataclass(frozen=True)
class Identity:
    """Who a request speaks of.

    `subject_id` None: not known yet. `consent` None: nothing was ever said. `settled` False: a
    subject or a link is still to be written (`establish`), or held under an older key.
    `joins_history`: settling adds what the visitor did before the login to what is read.
    """

    subject_id: str | None
    consent: Consent | None
    settled: bool
    joins_history: bool = False


@dataclass(frozen=True)
class ApiKey:
    """An API key without its secret; `sealed` hides the secret that page tokens are signed with."""

    key_id: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None
    sealed: bytes


@dataclass(frozen=True)
class StoredAnswer:
    """What was answered to a write that carried an idempotency key."""

    body_digest: str
    status: int
    answer: bytes


class ControlStore(Protocol):
    """Reads are quick and local; writes are durable when they return.

    How a login joins two subjects: the visitor is linked to the user, and the user's subject is
    the identity of both from then on. The user's own consent holds; where the user has none, the
    visitor's is carried over. What the visitor's subject did before stays under it and is read
    together with the user's (`histories`). A device shared by a second user links to that one
    from then on, but its earlier history stays with the first: it is never shown to another.
    """

    def look_up(self, visitor: Pseudonyms, user: Pseudonyms | None) -> Identity:
        """Who this is, writing nothing. Raises StoreError."""
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
        """The consent in force, following the subject's link."""
        ...

    async def record_consent(self, subject_id: str, consent: Consent) -> None:
        """Append a consent record, following the subject's link."""
        ...

    async def add_key(self, key: ApiKey, digest: str) -> None:
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

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
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

    async def change_items(self, patches: Sequence[tuple[str, Patch]]) -> int:
        """Lay what the shop says of items, by id, over what it said before; its number."""
        ...

    def items_changed_since(self, number: int) -> list[tuple[str, ItemChange, int]]:
        """Item id, what is said of it and the number of that, of all said after `number`."""
        ...

    def version(self) -> int:
        """Grows with every change of consent, link or key by any process on this store."""
        ...

    def close(self) -> None:
        """Finish what waits and let go of the files."""
        ...
