"""The control store, seen by two processes' worth of connections."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from contract.errors import UserError
from serving.state.control_store import ApiKey, Consent, StoredAnswer
from serving.state.secrets import Secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import StateFolder

NOW = datetime(2017, 11, 20, tzinfo=UTC)
SECRETS = Secrets((b"k" * 32,))
VISITOR = SECRETS.pseudonyms("v", "visitor")
USER = SECRETS.pseudonyms("u", "user")
AGREED = Consent(frozenset({"analytics"}), NOW, "banner", "1")


@pytest.fixture
def two_replicas(tmp_path: Path) -> Iterator[tuple[SqliteControlStore, SqliteControlStore]]:
    """Two stores on one file, as two gateways have them."""
    one, other = (SqliteControlStore(tmp_path / "control.sqlite", SECRETS) for _ in range(2))
    yield one, other
    one.close()
    other.close()


Two = tuple[SqliteControlStore, SqliteControlStore]


async def test_a_change_is_seen_by_another_replica_at_once(two_replicas: Two) -> None:
    one, other = two_replicas
    before = other.version()
    identity = await one.establish(VISITOR, None, AGREED)
    assert other.look_up(VISITOR, None).subject_id == identity.subject_id
    assert other.look_up(VISITOR, None).consent == AGREED
    assert other.version() > before
    key = ApiKey(str(uuid4()), "checkout", NOW, None, b"s")
    await one.add_key(key, "digest")
    assert other.key_by_digest("digest") == key
    between = other.version()
    assert await other.revoke_key(key.key_id, NOW)
    assert one.key_by_digest("digest") is None
    assert one.version() > between
    assert not await one.revoke_key(key.key_id, NOW)


async def test_two_replicas_make_one_subject(two_replicas: Two) -> None:
    one, other = two_replicas
    made = await asyncio.gather(
        *(store.establish(VISITOR, USER, AGREED) for store in (one, other) * 10)
    )
    assert len({identity.subject_id for identity in made}) == 1


async def test_a_recorded_word_is_not_overwritten_by_a_first_one(two_replicas: Two) -> None:
    one, _ = two_replicas
    identity = await one.establish(VISITOR, None, AGREED)
    later = Consent(frozenset({"personalization"}), NOW, "request")
    again = await one.establish(VISITOR, None, later)
    assert again.consent == AGREED
    assert identity.subject_id is not None
    await one.record_consent(identity.subject_id, later)
    assert one.consent_of(identity.subject_id) == later


async def test_looking_up_says_what_settling_would_change(two_replicas: Two) -> None:
    one, _ = two_replicas
    unknown = one.look_up(VISITOR, USER)
    assert (unknown.subject_id, unknown.settled, unknown.joins_history) == (None, False, False)
    visitor = await one.establish(VISITOR, None, AGREED)
    before = one.look_up(VISITOR, USER)
    assert (before.subject_id, before.settled) == (visitor.subject_id, False)
    assert before.joins_history
    assert before.consent == AGREED
    linked = await one.establish(VISITOR, USER, None)
    after = one.look_up(VISITOR, USER)
    assert (after.subject_id, after.settled) == (linked.subject_id, True)
    assert after.consent == AGREED
    assert not after.joins_history


async def test_answers_are_kept_for_their_time(two_replicas: Two) -> None:
    one, _ = two_replicas
    answer = StoredAnswer("digest", 202, b"{}")
    await one.remember_answer("scope", answer, NOW, NOW - timedelta(hours=24))
    assert one.answered("scope", NOW - timedelta(hours=24)) == answer
    assert one.answered("scope", NOW + timedelta(seconds=1)) is None
    later = NOW + timedelta(days=2)
    await one.remember_answer("other", answer, later, later - timedelta(hours=24))
    assert one.answered("scope", NOW) is None


def test_a_state_folder_serves_one_gateway(tmp_path: Path) -> None:
    with StateFolder(tmp_path), pytest.raises(UserError, match="in use"), StateFolder(tmp_path):
        pass
    with StateFolder(tmp_path):
        pass


def test_a_state_folder_that_can_not_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="state folder"), StateFolder(tmp_path / "file"):
        pass
