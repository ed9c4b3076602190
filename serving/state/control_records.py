"""What the control store holds, as those that ask it get it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from serving.state.audit import Line

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
    `histories`: as the method of that name tells them, by `look_up` alone; empty for a stranger.
    `agreed`: what `consent` holds and, before the link, what either of the two agreed to.
    """

    subject_id: str | None
    consent: Consent | None
    settled: bool
    joins_history: bool = False
    histories: tuple[str, ...] = field(default=(), compare=False)
    agreed: frozenset[str] = field(default=frozenset(), compare=False)


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


@dataclass(frozen=True)
class SubjectKey:
    """The key of one subject's data; `log_key` is the random name of the subject in the event log
    and in snapshots, which mean nothing once this record is gone."""

    subject_id: str
    log_key: bytes
    data_key: bytes


@dataclass(frozen=True)
class SubjectRecord:
    """What the control store holds about one subject, for the subject to read."""

    subject_id: str
    audit_name: str
    made_at: datetime
    consents: tuple[Consent, ...]
    user_subject: str | None
    history_owner: str | None
    audit: tuple[Line, ...]


@dataclass(frozen=True)
class Erased:
    """What was removed, and how far its removal from the other stores has come.

    `traces` are the bytes that may be found nowhere from now on; `exports` the ids of those that
    were not looked through yet. `events_gone`, `features_gone` and `facts_gone` (of every worker's
    key figures): nothing is left there; `keepers_lost`: workers that were not waited for, because
    nobody has heard of them for long. `scrubbed`: the control store's own files were looked at, and
    `clean` says with what result. `number`: how many erasures there were with it.
    """

    erasure_id: str
    subject_ids: tuple[str, ...]
    log_keys: tuple[bytes, ...]
    traces: tuple[bytes, ...]
    line: Line
    exports: tuple[str, ...] = ()
    events_gone: bool = False
    features_gone: bool = False
    facts_gone: bool = False
    scrubbed: bool = False
    clean: bool = False
    events_removed: int = 0
    export_rows_removed: int = 0
    number: int = 0
    keepers_lost: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        gone = self.events_gone and self.features_gone and self.facts_gone
        return gone and self.scrubbed and not self.exports


@dataclass(frozen=True)
class FactKeeper:
    """A worker that keeps facts of subjects in a file of its own: of the first so many `erasures`
    nothing was left there when it last said so."""

    keeper_id: str
    erasures: int
    said_at: datetime


@dataclass(frozen=True)
class Export:
    """A Parquet export that an erasure must reach; `key` makes its pseudonyms."""

    export_id: str
    folder: str
    made_at: datetime
    key: bytes


@dataclass(frozen=True)
class ReviewMessage:
    """What is to be told outside: `body` is the JSON text as it is sent every time, `attempts` were
    made before."""

    message_id: str
    review_id: str
    body: str
    made_at: datetime
    attempts: int
