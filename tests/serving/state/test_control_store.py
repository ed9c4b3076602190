"""The control store, seen by two gateways, in each database."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from benchmarks.postgres_process import PostgresServer
from contract.clock import FixedClock
from contract.errors import UserError
from serving.state.audit import COMMAND_LINE, Entry, first_fault
from serving.state.control_records import ApiKey, Consent, Export, Identity, StoredAnswer
from serving.state.control_schema import TABLES, make_tables
from serving.state.held_keys import KEY_HELD_S, HeldKeys
from serving.state.secrets import Pseudonym, Pseudonyms, Secrets, UnknownMasterKey
from serving.state.sql_control_store import SqlControlStore
from serving.state.state_folder import StateFolder
from tests.serving.state.control_places import ControlPlace, in_postgresql, in_sqlite, seen
from tests.serving.state.stores import SECRETS

NOW = datetime(2017, 11, 20, tzinfo=UTC)
VISITOR = SECRETS.pseudonyms("v", "visitor")
USER = SECRETS.pseudonyms("u", "user")
AGREED = Consent(frozenset({"analytics"}), NOW, "banner", "1")


Two = tuple[SqlControlStore, SqlControlStore]


@pytest.fixture
def two_replicas(control_place: ControlPlace) -> Iterator[Two]:
    """Two stores in one place, as two gateways have them."""
    one, other = (control_place.open() for _ in range(2))
    yield one, other
    one.close()
    other.close()


def said(store: SqlControlStore, visitor: Pseudonyms) -> Identity:
    """What a look-up says, but for the histories, of which writing says nothing."""
    return replace(store.look_up(visitor, None), histories=())


async def test_a_change_is_seen_by_another_replica_within_a_second(two_replicas: Two) -> None:
    one, other = two_replicas
    before = other.version()
    identity = await one.establish(VISITOR, None, AGREED)
    await seen(lambda: said(other, VISITOR) == identity)
    assert identity.consent == AGREED
    assert other.version() > before
    key = ApiKey(str(uuid4()), "checkout", NOW, None, b"s")
    await one.add_key(key, "digest")
    await seen(lambda: other.key_by_digest("digest") == key)
    between = other.version()
    assert await other.revoke_key(key.key_id, NOW)
    await seen(lambda: one.key_by_digest("digest") is None)
    assert one.version() > between
    assert not await one.revoke_key(key.key_id, NOW)
    withdrawn = Consent(frozenset(), NOW, "settings page")
    assert identity.subject_id is not None
    await other.record_consent(identity.subject_id, withdrawn)
    await seen(lambda: one.look_up(VISITOR, None).consent == withdrawn)


async def test_what_was_written_is_read_at_once_where_it_was_written(two_replicas: Two) -> None:
    for turn in range(20):
        store = two_replicas[turn % 2]
        name = SECRETS.pseudonyms(f"v{turn}", "visitor")
        identity = await store.establish(name, None, AGREED)
        assert said(store, name) == identity
        assert identity.subject_id is not None
        assert store.exists(identity.subject_id)
        assert store.subject_key(identity.subject_id) is not None


async def test_what_was_written_is_read_while_other_threads_read(two_replicas: Two) -> None:
    store, _ = two_replicas
    names = (SECRETS.pseudonyms(f"v{number}", "visitor") for number in range(300))
    known = await asyncio.gather(*(store.establish(name, None, AGREED) for name in names))
    subject = known[0].subject_id
    assert subject is not None
    read_on, words = threading.Event(), [frozenset[str](), frozenset({"analytics"})]

    def many_rows() -> None:
        while not read_on.is_set():
            store.subject_ids()

    with ThreadPoolExecutor(1) as another:
        beside = another.submit(many_rows)
        try:
            for number in range(50):
                word = replace(AGREED, purposes=words[number % 2])
                await store.record_consent(subject, word, COMMAND_LINE)
                assert store.consent_of(subject) == word
        finally:
            read_on.set()
        beside.result()


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


async def test_many_are_looked_up_as_each_would_be(two_replicas: Two) -> None:
    store, _ = two_replicas
    asked = [
        (
            SECRETS.pseudonyms(f"v{number}", "visitor"),
            SECRETS.pseudonyms(f"u{number % 3}", "user") if number % 2 else None,
        )
        for number in range(11)
    ]
    for number, (visitor, user) in enumerate(asked[:8]):
        await store.establish(visitor, user, AGREED if number % 3 else None)
    assert store.look_up_all(asked * 2) == [store.look_up(*one) for one in asked] * 2
    assert store.look_up_all([]) == []


async def test_looking_up_tells_whose_histories_are_read(two_replicas: Two) -> None:
    one, _ = two_replicas
    assert one.look_up(VISITOR, USER).histories == ()
    visitor = await one.establish(VISITOR, None, AGREED)
    assert one.look_up(VISITOR, None).histories == (visitor.subject_id,)
    user = await one.establish(VISITOR, USER, None)
    second = SECRETS.pseudonyms("second", "visitor")
    other = await one.establish(second, USER, None)
    assert user.subject_id == other.subject_id
    assert user.subject_id is not None
    expected = one.histories(user.subject_id)
    assert len(expected) == 3
    for asked in ((VISITOR, None), (VISITOR, USER), (second, None)):
        assert one.look_up(*asked).histories == expected
    keys = one.keys_with_histories(user.subject_id)
    assert keys[0] == one.subject_key(user.subject_id)
    assert {key.subject_id for key in keys} == set(expected)
    (own,) = one.keys_with_histories(expected[1])  # a visitor's history is not the user's
    assert own == one.subject_key(expected[1])
    newer = Secrets((b"n" * 32, *SECRETS.masters))
    found = one.look_up(newer.pseudonyms("v", "visitor"), newer.pseudonyms("u", "user"))
    assert (found.histories, found.consent, found.settled) == (expected, AGREED, False)


async def test_a_no_is_known_to_both_and_a_word_is_the_owners(two_replicas: Two) -> None:
    one, other = two_replicas
    everything = Consent(frozenset({"analytics", "offers", "personalization"}), NOW, "banner", "1")
    no = Consent(frozenset({"offers"}), NOW, "request")
    desk, second = SECRETS.pseudonyms("desk", "visitor"), SECRETS.pseudonyms("u2", "user")
    user = (await one.establish(desk, USER, everything)).subject_id
    visitor = (await one.establish(VISITOR, None, everything)).subject_id
    assert user is not None
    assert visitor is not None
    await seen(lambda: other.look_up(VISITOR, USER).agreed == everything.purposes)
    await other.restrict(VISITOR, USER, no)  # not linked yet: both have said so
    left = everything.purposes - no.purposes
    await seen(lambda: one.agreed_by([user, visitor]) == {user: left, visitor: left})
    assert one.agreed_by([str(uuid4())]) == {}
    await one.record_consent(visitor, Consent(frozenset(), NOW, "banner", "2"))
    await seen(lambda: not other.look_up(VISITOR, USER).consent.purposes)  # type: ignore[union-attr]
    await other.establish(VISITOR, USER, None)  # the newest word goes along
    await seen(lambda: one.agreed_by([user, visitor]) == {user: frozenset(), visitor: frozenset()})
    # Somebody else on the same device: what lies under it stays the first one's.
    await one.establish(VISITOR, second, everything)
    await one.record_consent(visitor, AGREED)
    await seen(lambda: other.agreed_by([user, visitor])[user] == AGREED.purposes)
    assert other.consent_of(visitor) == AGREED
    found = other.look_up(VISITOR, None)
    assert found.consent is not None
    assert found.consent.purposes == everything.purposes
    assert set(other.person_of(visitor)) >= {user, visitor}
    assert found.subject_id not in other.person_of(visitor)


def test_a_key_counts_for_a_moment_without_a_read() -> None:
    now, asked = 0.0, list[str]()
    key: ApiKey | None = ApiKey("k", "checkout", NOW, None, b"s")

    def read(digest: str) -> ApiKey | None:
        asked.append(digest)
        return key

    held = HeldKeys(lambda: now)
    assert held.of("d", read) == held.of("d", read) == key
    assert asked == ["d"]
    revoked_elsewhere, key = key, None
    now = KEY_HELD_S - 0.01
    assert held.of("d", read) == revoked_elsewhere
    now = KEY_HELD_S
    assert held.of("d", read) is None
    key = revoked_elsewhere  # what is not there is asked for every time
    assert held.of("d", read) == key
    key = None
    held.clear()
    assert held.of("d", read) is None


async def test_answers_are_kept_for_their_time(two_replicas: Two) -> None:
    one, other = two_replicas
    answer = StoredAnswer("digest", 202, b"{}")
    await one.remember_answer("scope", answer, NOW, NOW - timedelta(hours=24))
    assert one.answered("scope", NOW - timedelta(hours=24)) == answer
    assert one.answered("scope", NOW + timedelta(seconds=1)) is None
    await seen(lambda: other.answered("scope", NOW) == answer)
    later = NOW + timedelta(days=2)
    await one.remember_answer("other", answer, later, later - timedelta(hours=24))
    assert one.answered("scope", NOW) is None
    await seen(lambda: other.answered("scope", NOW) is None)


async def test_an_erasure_is_seen_and_nothing_of_the_person_is_left(two_replicas: Two) -> None:
    one, other = two_replicas
    linked = await one.establish(VISITOR, USER, AGREED)
    assert linked.subject_id is not None
    person, count = one.person_of(linked.subject_id), other.erasures()
    key = one.subject_key(linked.subject_id)
    assert key is not None
    await seen(lambda: other.exists(str(linked.subject_id)))
    assert other.subject_key_by_log_key(key.log_key) == key
    record = other.record_of(linked.subject_id)
    assert record is not None
    assert [len(record.consents), len(record.audit)] == [1, 1]
    erased = await one.erase(linked.subject_id, COMMAND_LINE)
    assert erased is not None
    assert sorted(erased.subject_ids) == sorted(person)
    await seen(lambda: other.erasures() > count)
    for store in (one, other):
        assert store.look_up(VISITOR, USER) == Identity(None, None, settled=False)
        assert store.subject_ids() == []
        assert store.subject_key_by_log_key(key.log_key) is None
        assert store.keys_with_histories(linked.subject_id) == []
        assert list(store.subject_keys(subject_ids=person, log_keys=[key.log_key])) == []
        assert store.record_of(linked.subject_id) is None
        assert sorted(store.unfinished_erasures()) == sorted(erased.log_keys)
    await other.finish_erasures(erased.log_keys)
    await seen(lambda: one.unfinished_erasures() == ())
    await one.record_consent(linked.subject_id, AGREED)  # too late
    assert one.consent_of(linked.subject_id) is None
    lines, head = other.audit_log()
    assert first_fault(lines, head, other.service_key("audit")) is None


async def test_both_see_what_was_said_of_items_in_its_order(two_replicas: Two) -> None:
    one, other = two_replicas
    first = await one.change_items([("a", {"price": 5}), ("b", {"regions": ["DE"]})])
    await seen(lambda: len(other.items_changed_since(0)) == 2)
    second = await other.change_items([("a", {"available": False}), ("b", {"regions": None})])
    assert second > first
    await seen(lambda: len(one.items_changed_since(first)) == 2)
    said = {item_id: change for item_id, change, _ in one.items_changed_since(0)}
    assert (said["a"].price, said["a"].available) == (5, False)
    assert said["b"].regions is None
    assert one.items_changed_since(second) == []


async def test_exports_imports_and_what_is_let_go(two_replicas: Two) -> None:
    one, other = two_replicas
    export = Export(str(uuid4()), "/somewhere", NOW, b"k" * 32)
    await one.add_export(export)
    await seen(lambda: other.exports() == [export])
    await other.drop_export(export.export_id)
    await seen(lambda: one.exports() == [])
    rows = [(Pseudonym("v", f"d{n}"), str(UUID(int=n))) for n in range(1_500)]
    assert await one.import_subjects(rows, AGREED, ("import", "made")) == 1_500
    await seen(lambda: len(other.subject_ids()) == 1_500, 5)
    assert other.note("import") == "made"
    known = list(other.subject_keys(subject_ids=[str(UUID(int=n)) for n in range(2_000)]))
    assert len(known) == 1_500
    future = datetime.now(UTC) + timedelta(days=1)
    await seen(lambda: len(other.subjects_without_consent_since(future)) == 1_500, 5)
    await seen(lambda: other.subjects_without_consent_since(NOW) == [], 5)
    await one.audit(Entry("made", NOW, COMMAND_LINE))
    assert await one.let_go(NOW, NOW) == (0, 0)


async def test_one_that_fails_does_not_spoil_what_was_written_with_it(two_replicas: Two) -> None:
    one, other = two_replicas
    key = ApiKey(str(uuid4()), "checkout", NOW, None, b"s")
    await one.add_key(key, "digest")
    before = len(one.audit_log()[0])
    twice = ApiKey(str(uuid4()), "admin", NOW, None, b"s")
    names = [SECRETS.pseudonyms(f"v{n}", "visitor") for n in range(10)]
    told = await asyncio.gather(
        *(one.establish(name, None, AGREED) for name in names[:5]),
        one.add_key(twice, "digest"),
        *(one.establish(name, None, AGREED) for name in names[5:]),
        return_exceptions=True,
    )
    assert [isinstance(answer, Identity) for answer in told] == [True] * 5 + [False] + [True] * 5
    assert isinstance(told[5], Exception)
    assert len(one.subject_ids()) == 10
    assert one.key_by_id(twice.key_id) is None
    lines, head = other.audit_log()
    assert len(lines) == before + 10
    assert first_fault(lines, head, one.service_key("audit")) is None


async def test_a_rotated_master_key(control_place: ControlPlace) -> None:
    old, new = Secrets((b"o" * 32,)), Secrets((b"n" * 32,))
    store = control_place.open(old)
    await store.establish(old.pseudonyms("v", "visitor"), None, AGREED)
    store.close()
    with pytest.raises(UnknownMasterKey, match=old.newest):
        control_place.open(new)
    store = control_place.open(Secrets((*new.masters, *old.masters)))
    assert await store.rewrap(COMMAND_LINE) == 1 + 4  # the subject's; those of the shop
    assert store.key_versions()["subject_keys"] == {new.newest: 1}
    assert store.key_versions()["subjects"] == {old.newest: 1}
    store.close()
    store = control_place.open(new)
    assert await store.rewrap(COMMAND_LINE) == 0
    store.close()


def test_a_store_of_a_newer_version_is_refused(control_place: ControlPlace) -> None:
    control_place.open().close()
    newer = {"sqlite": "PRAGMA user_version = 99"}
    control_place.run(newer.get(control_place.url, "UPDATE schema_steps SET number = 99"))
    with pytest.raises(UserError, match="newer version"):
        control_place.open()


async def test_first_starts_at_the_same_moment_make_one_store(control_place: ControlPlace) -> None:
    """Every one takes all steps, or finds them taken."""
    opened = await asyncio.gather(*(asyncio.to_thread(control_place.open) for _ in range(4)))
    try:
        assert len({store.service_key("audit") for store in opened}) == 1
        await asyncio.gather(*(store.establish(VISITOR, None, AGREED) for store in opened))
        for store in opened:
            await seen(lambda store=store: len(store.subject_ids()) == 1)  # type: ignore[misc]
    finally:
        for store in opened:
            store.close()
    again = control_place.open()
    assert len(again.subject_ids()) == 1
    again.close()


async def test_both_databases_say_the_same_of_the_same_story(
    tmp_path: Path, database: PostgresServer
) -> None:
    """Random shoppers who come, log in, change their mind and go; names are drawn, so only what
    is alike of them is compared."""
    places = (in_sqlite(tmp_path / "one"), in_postgresql(tmp_path / "two", database))
    stores = [place.open(clock=FixedClock(NOW)) for place in places]
    told: list[list[object]] = [[], []]
    try:
        for told_by, store in zip(told, stores, strict=True):
            draw = random.Random(5)
            for _ in range(150):
                told_by.append(await _something(store, draw))
            lines, head = store.audit_log()
            assert first_fault(lines, head, store.service_key("audit")) is None
            told_by.append([len(lines), len(store.subject_ids()), store.version()])
        assert told[0] == told[1]
    finally:
        for store in stores:
            store.close()


async def _something(store: SqlControlStore, draw: random.Random) -> object:
    visitor = SECRETS.pseudonyms(f"v{draw.randrange(6)}", "visitor")
    user = SECRETS.pseudonyms(f"u{draw.randrange(3)}", "user") if draw.random() < 0.4 else None
    act, consent = draw.random(), replace(AGREED, source=f"source-{draw.randrange(100)}")
    known = store.look_up(visitor, user)
    subject = known.subject_id
    told: list[object] = [known.consent, known.settled, known.joins_history, subject is None]
    if act < 0.5:
        made = await store.establish(visitor, user, consent)
        told += [made.consent, made.settled]
    elif subject is not None and act < 0.8:
        await store.record_consent(subject, consent)
        told.append(store.consent_of(subject))
    elif subject is not None:
        erased = await store.erase(subject, COMMAND_LINE)
        assert erased is not None
        told += [len(erased.subject_ids), len(erased.log_keys), len(erased.traces)]
        told.append(erased.line.number)
    if subject is not None:
        record = store.record_of(subject)
        told += [len(store.histories(subject)), len(store.person_of(subject))]
        told.append(record and [record.made_at, record.consents, len(record.audit)])
    return told


def test_every_table_is_copied_and_saved() -> None:
    """A table that is made and named nowhere would be missing from copies and backups."""
    with closing(sqlite3.connect(":memory:")) as connection:
        make_tables(connection)
        asked = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        made = {name for (name,) in connection.execute(asked)}
    assert made == set(TABLES)


def test_a_state_folder_serves_one_gateway(tmp_path: Path) -> None:
    with StateFolder(tmp_path), pytest.raises(UserError, match="in use"), StateFolder(tmp_path):
        pass
    with StateFolder(tmp_path):
        pass


def test_a_state_folder_that_can_not_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="state folder"), StateFolder(tmp_path / "file"):
        pass
