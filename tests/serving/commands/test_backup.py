"""A backup is whole or refused, and a restore brings back nobody who was erased meanwhile."""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from benchmarks.postgres_process import PostgresServer
from contract.offer_checks import Used
from contract.offers import Limits
from serving.control import open_control, open_ledger
from serving.settings import Settings, load_settings
from serving.state.audit import COMMAND_LINE, first_fault
from serving.state.control_records import Consent
from serving.state.coupon_ledger import CouponLedger
from serving.state.event_log import SqliteEventLog
from serving.state.feature_store import MemoryFeatureStore
from serving.state.receipts import ReceiptSigner
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import load_secrets
from serving.state.snapshot import read_snapshot
from serving.state.sql_control_store import SqlControlStore
from serving.state.state_folder import SEED
from tests.faults.coupon_buyer import claim, settlement
from tests.serving.commands.processes import Place
from tests.serving.release_factory import Factory
from tests.serving.state.events import BEGIN, random_events, stored_event
from tests.serving.state.stores import add_subjects
from tests.serving.traces import sealed_events

ONE, TWO, THREE = (str(UUID(int=n)) for n in (1, 2, 3))
WITHDRAWN = Consent(frozenset(), BEGIN + timedelta(days=1), "settings page", "2")


@dataclass
class Shop:
    """A place, and the variables that say where its control store is."""

    place: Place
    more: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.place.state

    def call(self, *arguments: str) -> str:
        """What a command prints, which must succeed."""
        ended = self.place.call(*arguments, **self.more)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def refused(self, *arguments: str) -> str:
        """Why a command refuses, in one line."""
        ended = self.place.call(*arguments, **self.more)
        assert ended.returncode in (2, 3), ended.stdout
        assert len(ended.stderr.splitlines()) == 1
        return ended.stderr

    @contextmanager
    def control(self) -> Iterator[SqlControlStore]:
        """The control store as the settings say, while no gateway runs."""
        settings = self.settings()
        store = open_control(settings, load_secrets(self.state, settings.master_key))
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def ledger(self) -> Iterator[CouponLedger]:
        """The coupon ledger."""
        ledger = open_ledger(self.settings())
        try:
            yield ledger
        finally:
            ledger.close()

    def settings(self) -> Settings:
        """As the variables say."""
        named = {name.removeprefix("TILLWISE_").lower(): said for name, said in self.more.items()}
        return load_settings(state=self.state, **named)


def elsewhere(shop: Shop, state: Path, server: PostgresServer | None = None) -> Shop:
    """The same shop with nothing in it yet."""
    more = dict(shop.more)
    if "TILLWISE_CONTROL_STORE" in more:
        assert server is not None
        more["TILLWISE_CONTROL_STORE"] = server.url_of_own()
    return Shop(Place(shop.place.factory, state), more)


MASTER = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5LiE="


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(
    request: pytest.FixtureRequest,
    release_root: Factory,
    tmp_path: Path,
    database: PostgresServer,
) -> Shop:
    """Four subjects, fifty events, a snapshot and a key."""
    made = Shop(Place(release_root, tmp_path / "state"), {"TILLWISE_MASTER_KEY": MASTER})
    if request.param == "postgresql":
        made.more["TILLWISE_CONTROL_STORE"] = database.url_of_own()
        made.more["TILLWISE_POSTGRES_USER"] = database.user
    made.call("keys", "create", "--role", "checkout")

    async def fill() -> None:
        with made.control() as control:
            await add_subjects(control, 4)
            log = SqliteEventLog(made.state / "events.sqlite", SealedCodec(SubjectKeys(control)))
            await log.append(random_events(seed=1, count=50))
            features = MemoryFeatureStore(made.state, SubjectKeys(control))
            features.restore(log)
            await features.snapshot()
            log.close()

    asyncio.run(fill())
    return made


def backed_up(shop: Shop, folder: Path) -> Path:
    shop.call("backup", "--output", str(folder))
    return folder


def contents(shop: Shop) -> tuple[dict[str, Consent | None], int, set[str]]:
    """Consents of all, how many events open, and of whom something is remembered."""
    with shop.control() as control:
        lines, head = control.audit_log()
        assert first_fault(lines, head, control.service_key("audit")) is None
        keys = SubjectKeys(control)
        log = SqliteEventLog(shop.state / "events.sqlite", SealedCodec(keys))
        features = MemoryFeatureStore(shop.state, keys)
        features.restore(log)
        events = len(list(log.read_from(0)))
        held = asyncio.run(features.read_many([ONE, TWO, THREE]))
        log.close()
        ids = sorted(control.subject_ids())
        known = {one for one, state in zip((ONE, TWO, THREE), held, strict=True) if state}
        return {one: control.consent_of(one) for one in ids}, events, known


def test_what_is_restored_is_what_was_backed_up(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    before = contents(shop)
    backup = backed_up(shop, tmp_path / "backup")
    assert {path.name for path in backup.iterdir()} - {"coupons.sqlite"} == {
        *("backup.json", "control.sqlite", "events.sqlite", "features.npz")
    }
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    fresh.call("restore", str(backup), "--as-of-backup")
    assert contents(fresh) == before
    assert before[1] == 50
    assert "checkout" in fresh.call("keys", "list")
    with fresh.control() as control:  # and it goes on from there
        asyncio.run(control.record_consent(ONE, WITHDRAWN))
        assert control.consent_of(ONE) == WITHDRAWN
    fresh.call("audit", "verify")
    assert not (fresh.state / ".restoring").exists()


def test_a_shop_moves_from_sqlite_to_postgresql_and_back(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    before = contents(shop)
    other = {"TILLWISE_MASTER_KEY": MASTER}
    if "TILLWISE_CONTROL_STORE" not in shop.more:
        other["TILLWISE_CONTROL_STORE"] = database.url_of_own()
        other["TILLWISE_POSTGRES_USER"] = database.user
    moved = Shop(Place(shop.place.factory, tmp_path / "moved"), other)
    moved.call("restore", str(backed_up(shop, tmp_path / "backup")), "--as-of-backup")
    assert contents(moved) == before


def test_coupons_go_along(shop: Shop, tmp_path: Path, database: PostgresServer) -> None:
    """What was reserved and redeemed is so afterwards too, and a redemption counts once."""
    later = BEGIN + timedelta(minutes=10)

    async def buy() -> tuple[str, dict[str, Used]]:
        with shop.ledger() as ledger:
            for number in (1, 2):
                held = await ledger.reserve(claim(number), Limits(), BEGIN, later)
            await ledger.redeem([held.reservation_id], settlement(2), BEGIN)
            return held.reservation_id, await ledger.used(BEGIN)

    before = asyncio.run(buy())
    assert before[1]
    backup = backed_up(shop, tmp_path / "backup")
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    fresh.call("restore", str(backup), "--as-of-backup")

    async def again() -> tuple[str, dict[str, Used]]:
        with fresh.ledger() as ledger:
            held = await ledger.reserve(claim(2), Limits(), BEGIN, later)  # the same token
            return held.reservation_id, await ledger.used(BEGIN)

    assert asyncio.run(again()) == before


def test_a_shop_may_leave_its_events_behind(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    """Their features go along, as an import's do."""
    _, _, known = contents(shop)
    backup = backed_up(shop, tmp_path / "backup")
    _, receipt, _ = since(shop, tmp_path)
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    fresh.more["TILLWISE_EVENT_LOG"] = "kafka://127.0.0.1:1/events"
    told = ("restore", str(backup), "--receipt", str(receipt))
    assert "--without-events" in fresh.refused(*told)
    fresh.call(*told, "--without-events")
    assert not (fresh.state / "events.sqlite").exists()
    with fresh.control() as control:
        states = read_snapshot(fresh.state / SEED, SubjectKeys(control)).states
    assert {one for one in (ONE, TWO, THREE) if states.get(one)} == known - {ONE}
    assert "names another kind" in shop.refused(*told, "--without-events", "--state", str(tmp_path))


def files_with(names: Sequence[str], folder: Path) -> list[str]:
    """Of subjects 1 to 4 only the text is looked for: their bytes are nearly all zeros."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files for one in names if one.encode() in path.read_bytes()]


def since(shop: Shop, tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """What happens after the backup: audit lines and a receipt of it, and who is gone."""

    async def go_on() -> dict[str, object]:
        with shop.control() as control:
            signer = ReceiptSigner(control.service_key("receipt"))
            erased = await control.erase(ONE, COMMAND_LINE)
            assert erased is not None
            await control.record_consent(TWO, WITHDRAWN)
            (key,) = control.list_keys()
            await control.revoke_key(key.key_id, BEGIN, COMMAND_LINE)
            return signer.sign({"subject_ids": list(erased.subject_ids)})

    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(asyncio.run(go_on())))
    lines = tmp_path / "audit.jsonl"
    lines.write_text(shop.call("audit", "show"))
    return lines, receipt, [ONE]


def test_who_was_erased_since_does_not_come_back(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    backup = backed_up(shop, tmp_path / "backup")
    lines, _, gone = since(shop, tmp_path)
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    said = fresh.call("restore", str(backup), "--audit", str(lines))
    assert "1 subjects erased, 1 consents, 1 keys revoked" in said
    consents, events, known = contents(fresh)
    assert sorted(consents) == sorted({TWO, THREE, str(UUID(int=4))})
    said_by = [consents[one] for one in (TWO, THREE)]
    # Withdrawn is withdrawn.
    assert [consent and len(consent.purposes) for consent in said_by] == [0, 2]
    assert 0 < events < 50
    assert ONE not in known
    assert files_with(gone, fresh.state) == []
    with fresh.control() as control:
        assert control.list_keys()[0].revoked_at is not None
        assert len(control.unfinished_erasures()) == 1  # what lies in the log goes at the start


def test_a_receipt_is_enough_for_an_erasure(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    backup = backed_up(shop, tmp_path / "backup")
    _, receipt, gone = since(shop, tmp_path)
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    figures = tmp_path / "figures.json"
    fresh.call("restore", str(backup), "--receipt", str(receipt), "--json", str(figures))
    (note,) = json.loads(figures.read_text())["notes"]  # said on the command line as well
    assert "withdrawn consent since the backup has it again" in note
    with fresh.control() as control:
        assert not control.exists(ONE)
        assert control.exists(TWO)
    assert files_with(gone, fresh.state) == []
    forged = json.loads(receipt.read_text())
    forged["receipt"]["subject_ids"] = [TWO]
    receipt.write_text(json.dumps(forged))
    third = elsewhere(shop, tmp_path / "third", database)
    assert "signature" in third.refused("restore", str(backup), "--receipt", str(receipt))
    assert not (third.state / "control.sqlite").exists()


def test_all_that_one_person_was_is_erased_again(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    """The visitor logs in after the backup and is erased as a user, whom the backup never knew."""
    with shop.control() as control:
        secrets = control._secrets
        visitor, user = secrets.pseudonyms("v", "visitor"), secrets.pseudonyms("u", "user")
        agreed = Consent(frozenset({"personalization"}), BEGIN, "banner")
        first = asyncio.run(control.establish(visitor, None, agreed))
        other = asyncio.run(control.establish(secrets.pseudonyms("w", "visitor"), None, agreed))
    backup = backed_up(shop, tmp_path / "backup")
    with shop.control() as control:
        second = asyncio.run(control.establish(visitor, user, None))
        assert second.subject_id != first.subject_id
        assert asyncio.run(control.erase(str(second.subject_id), COMMAND_LINE)) is not None
        name = secrets.pseudonyms("x", "user")
        third = asyncio.run(control.establish(secrets.pseudonyms("w", "visitor"), name, None))
        asyncio.run(control.record_consent(str(third.subject_id), WITHDRAWN))
    lines = tmp_path / "audit.jsonl"
    lines.write_text(shop.call("audit", "show"))
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    fresh.call("restore", str(backup), "--audit", str(lines))
    with fresh.control() as control:
        assert not control.exists(str(first.subject_id))
        held = control.consent_of(str(other.subject_id))
        assert held is not None
        assert held.purposes == frozenset()


def test_it_must_be_said_what_came_after(shop: Shop, tmp_path: Path) -> None:
    backup = backed_up(shop, tmp_path / "backup")
    fresh = elsewhere(shop, tmp_path / "fresh", None) if len(shop.more) == 1 else shop
    assert "must not come back" in fresh.refused("restore", str(backup))
    lines, receipt, _ = since(shop, tmp_path)
    both = ("--audit", str(lines), "--as-of-backup")
    assert "must not come back" in fresh.refused("restore", str(backup), *both)
    assert receipt.exists()


def lines_cut(lines: list[str]) -> list[str]:
    return lines[:-3] + lines[-2:]


def lines_of_another_log(lines: list[str]) -> list[str]:
    return [one.replace('"mac": "', '"mac": "0') for one in lines]


def lines_too_old(lines: list[str]) -> list[str]:
    return lines[:1]


@pytest.mark.parametrize("harm", [lines_cut, lines_of_another_log, lines_too_old])
def test_lines_that_do_not_follow_on_the_backup_are_refused(
    release_root: Factory, tmp_path: Path, harm: Callable[[list[str]], list[str]]
) -> None:
    shop = Shop(Place(release_root, tmp_path / "state"), {"TILLWISE_MASTER_KEY": MASTER})
    for _ in range(3):
        shop.call("keys", "create", "--role", "checkout")
    backup = backed_up(shop, tmp_path / "backup")
    for _ in range(4):
        shop.call("keys", "create", "--role", "admin")
    lines = tmp_path / "audit.jsonl"
    lines.write_text("\n".join(harm(shop.call("audit", "show").splitlines())))
    fresh = elsewhere(shop, tmp_path / "fresh")
    assert "audit lines" in fresh.refused("restore", str(backup), "--audit", str(lines))
    assert not (fresh.state / "control.sqlite").exists()


def test_a_damaged_backup_is_refused(shop: Shop, tmp_path: Path, database: PostgresServer) -> None:
    backup = backed_up(shop, tmp_path / "backup")
    fresh = elsewhere(shop, tmp_path / "fresh", database)
    for name in ("events.sqlite", "control.sqlite", "features.npz", "backup.json"):
        harmed = tmp_path / f"harmed-{name}"
        shutil.copytree(backup, harmed)
        content = bytearray((harmed / name).read_bytes())
        content[len(content) // 2] ^= 1
        (harmed / name).write_bytes(content)
        said = fresh.refused("restore", str(harmed), "--as-of-backup")
        assert name in said
        (harmed / name).unlink()
        assert name in fresh.refused("restore", str(harmed), "--as-of-backup")
    manifest = json.loads((backup / "backup.json").read_text())
    manifest["backup"]["audit_number"] = 0  # so that erasures before it would be left out
    (backup / "backup.json").write_text(json.dumps(manifest))
    assert "was changed" in fresh.refused("restore", str(backup), "--as-of-backup")
    assert {path.name for path in fresh.state.iterdir()} <= {"lock"}


def test_what_is_there_is_never_replaced(
    shop: Shop, tmp_path: Path, database: PostgresServer
) -> None:
    backup = backed_up(shop, tmp_path / "backup")
    before = contents(shop)
    assert shop.refused("restore", str(backup), "--as-of-backup")
    assert contents(shop) == before
    assert "is not empty" in shop.refused("backup", "--output", str(backup))


def test_the_master_key_goes_along_only_when_told(release_root: Factory, tmp_path: Path) -> None:
    shop = Shop(Place(release_root, tmp_path / "state"))
    shop.call("keys", "create", "--role", "checkout")
    key = (shop.state / "master.key").read_bytes()
    without, with_key = tmp_path / "without", tmp_path / "with"
    assert "of no use without" in shop.call("backup", "--output", str(without))
    shop.call("backup", "--output", str(with_key), "--with-master-key")
    assert [path.name for path in without.iterdir() if key.strip() in path.read_bytes()] == []
    fresh = elsewhere(shop, tmp_path / "fresh")
    assert "needs the master key" in fresh.refused("restore", str(without), "--as-of-backup")
    assert not (fresh.state / "master.key").exists()
    fresh.call("restore", str(with_key), "--as-of-backup")
    assert (fresh.state / "master.key").read_bytes() == key
    assert (fresh.state / "master.key").stat().st_mode & 0o777 == 0o600
    assert "checkout" in fresh.call("keys", "list")
    other = Shop(Place(release_root, tmp_path / "other"), {"TILLWISE_MASTER_KEY": MASTER})
    assert "not held here" in other.refused("restore", str(without), "--as-of-backup")


def test_a_backup_of_a_running_gateway_lacks_nothing_that_it_refers_to(
    release_root: Factory, tmp_path: Path
) -> None:
    """While subjects come and events are written, every event in every backup opens."""
    shop = Shop(Place(release_root, tmp_path / "state"), {"TILLWISE_MASTER_KEY": MASTER})
    shop.call("keys", "create", "--role", "checkout")
    stop = threading.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        with shop.control() as control:
            log = SqliteEventLog(shop.state / "events.sqlite", SealedCodec(SubjectKeys(control)))
            await add_subjects(control, 4)
            while not stop.is_set():
                answers = await log.append([stored_event(written + n) for n in range(1, 21)])
                written += len(answers)
            log.close()

    writer = threading.Thread(target=lambda: asyncio.run(write()))
    writer.start()
    try:
        while not written:
            pass
        backups: Sequence[Path] = [backed_up(shop, tmp_path / f"backup-{n}") for n in range(4)]
    finally:
        stop.set()
        writer.join()
    counts = []
    for number, backup in enumerate(backups):
        fresh = elsewhere(shop, tmp_path / f"fresh-{number}")
        fresh.call("restore", str(backup), "--as-of-backup")
        with fresh.control() as control:
            codec = SealedCodec(SubjectKeys(control))
            log = SqliteEventLog(fresh.state / "events.sqlite", codec)
            opened = len(list(log.read_from(0)))
            assert opened == len(sealed_events(fresh.state / "events.sqlite"))
            counts.append(opened)
            log.close()
    assert 0 < counts[0] <= counts[-1] <= written
