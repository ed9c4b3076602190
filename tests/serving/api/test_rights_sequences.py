"""Random sequences of grant, withdraw, event, decide, login and erase by two users on two devices
that both use, held against a small model of what was agreed to: no event is stored and no history
used without consent, nobody sees another's, and who was erased is found nowhere. `TILLWISE_PROVE`
runs ten thousand sequences."""

import os
import random
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contract.features import SubjectState
from tests.serving.api.test_subjects_and_consent import say
from tests.serving.conftest import ALL, Running, Start, event
from tests.serving.traces import found_in, opened_by_any, sealed_events

# In parts that may run beside one another.
PARTS, SEQUENCES = (10, 1_000) if os.environ.get("TILLWISE_PROVE") else (1, 120)
_PER_GATEWAY = 40
_STEPS = (4, 16)
_SHOPPERS = 2
ACTIONS = ("grant", "withdraw", "partly", "event", "event", "event", "decide", "decide", "erase")
_STORES = {"analytics", "personalization"}


@dataclass(eq=False)
class Record:
    """What the model knows of one user, or of one device before anybody logged in there."""

    raw: str
    agreed: frozenset[str] | None = None  # None: never said anything
    said: int = 0  # when, in words said by anybody
    known: bool = False  # a subject was made for it
    owner: "Record | None" = None  # of a device: who logged in first
    speaker: "Record | None" = None  # of a device: who logged in last
    stored: set[str] = field(default_factory=set)  # event ids
    subject_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Who:
    """A request's shopper: a device, and a user if logged in."""

    device: Record
    user: Record | None

    @property
    def ids(self) -> dict[str, Any]:
        return {"visitor_id": self.device.raw, "user_id": self.user and self.user.raw}

    @property
    def speaker(self) -> Record:
        return self.user or self.device.speaker or self.device

    @property
    def words(self) -> list[Record]:
        """Whose word this is: before the link, the visitor's and the user's."""
        joined = self.user is not None and self.device.owner is None
        return [self.speaker, self.device] if joined else [self.speaker]

    @property
    def newest(self) -> Record:
        return max(self.words, key=lambda one: one.said)


class Sequence:
    """One random sequence against one gateway."""

    def __init__(self, running: Running, folder: Path, seed: int, reads: list[str]) -> None:
        self.running, self.folder, self.reads = running, folder, reads
        self.chance = random.Random(seed)
        self.devices, self.users = (
            [Record(f"raw-{kind}-{seed}-{n}-{uuid4()}") for n in range(_SHOPPERS)]
            for kind in ("visitor", "user")
        )
        self.records = (*self.devices, *self.users)
        self.words = 0
        self.gone: set[str] = set()
        self.dead: list[bytes] = []  # sealed bodies of whoever was erased

    async def run(self) -> None:
        for _ in range(self.chance.randint(*_STEPS)):
            user = self.chance.choice(self.users) if self.chance.random() < 0.5 else None
            who = Who(self.chance.choice(self.devices), user)
            clock = self.running.clock
            clock.at += timedelta(milliseconds=1)  # so that every word has its time
            await getattr(self, f"_{self.chance.choice(ACTIONS)}")(who)
        await self._check()

    def _heard(self, record: Record, agreed: frozenset[str]) -> None:
        self.words += 1
        record.agreed, record.said = agreed, self.words

    def _link(self, who: Who) -> None:
        """Subjects are made; a login links them, and of the two words the newest counts."""
        who.device.known = True
        if who.user is None:
            return
        who.user.known = True
        if who.device.owner is None:
            who.user.agreed, who.user.said = who.newest.agreed, who.newest.said
            who.device.owner = who.user
        who.device.speaker = who.user

    def _in_effect(self, who: Who, said: frozenset[str] | None, *, gpc: bool) -> frozenset[str]:
        """As the public rules have it, with what the request writes: what it says no to is taken
        back, and a first word is recorded if it lets anything be kept."""
        agreed = who.newest.agreed
        found = (agreed or frozenset()) if said is None else said
        if said is not None and agreed is not None:
            found &= agreed
            for one in sorted(who.words, key=lambda one: one.said):
                if one.agreed and not one.agreed <= said:
                    self._heard(one, one.agreed & found)
        if gpc:
            return frozenset()
        if found & _STORES:
            self._link(who)
            if agreed is None:
                self._heard(who.speaker, found)
        return found

    async def _resolve(self, who: Who) -> str:
        answer = await self.running.post("/v1/subjects/resolve", who.ids)
        self._link(who)
        subject: str = answer.json()["subject_id"]
        who.speaker.subject_ids.add(subject)
        if who.user is not None and who.device.owner is who.user:
            # The device's own was never told if both were made at once.
            read = set(self.running.gateway.control.histories(subject))
            new = read - {one for record in self.records for one in record.subject_ids}
            assert len(new) <= 1
            who.device.subject_ids |= new
        return subject

    async def _say(self, who: Who, agreed: frozenset[str]) -> None:
        await say(self.running, await self._resolve(who), **dict.fromkeys(agreed, True))
        self._heard(who.speaker, agreed)

    async def _grant(self, who: Who) -> None:
        await self._say(who, frozenset(ALL))

    async def _withdraw(self, who: Who) -> None:
        await self._say(who, frozenset())

    async def _partly(self, who: Who) -> None:
        names = [name for name in ALL if self.chance.random() < 0.5]
        await self._say(who, frozenset(names))

    def _word(self) -> tuple[frozenset[str] | None, bool]:
        """What a request says itself."""
        said = None
        if self.chance.random() < 0.5:
            said = frozenset(name for name in ALL if self.chance.random() < 0.7)
        return said, self.chance.random() < 0.1

    def _as_sent(self, said: frozenset[str] | None) -> dict[str, bool] | None:
        return None if said is None else {name: name in said for name in ALL}

    async def _event(self, who: Who) -> None:
        said, gpc = self._word()
        sent = event(consent=self._as_sent(said), gpc=gpc, **who.ids)
        answer = await self.running.post("/v1/events", {"events": [sent]})
        allowed = bool(self._in_effect(who, said, gpc=gpc) & _STORES)
        result = answer.json()["results"][0]
        assert result["status"] == ("accepted" if allowed else "rejected"), answer.text
        if allowed:
            who.speaker.stored.add(sent["event_id"])
            await self._resolve(who)

    async def _decide(self, who: Who) -> None:
        said, gpc = self._word()
        self.reads.clear()
        answer = await self.running.decide(consent=self._as_sent(said), gpc=gpc, **who.ids)
        assert answer.status_code == 200
        purposes = self._in_effect(who, said, gpc=gpc)
        await self.running.quiet()
        if "personalization" not in purposes:
            assert self.reads == [], "history was read without consent"
        assert not set(self.reads) & self.gone
        if purposes & _STORES:
            await self._resolve(who)
            assert set(self.reads) <= self._person(who.speaker)[1], "another's history was read"
        if "analytics" in purposes:
            who.speaker.stored.add(answer.json()["decision_id"])

    def _person(self, record: Record) -> tuple[list[Record], set[str]]:
        """The records that are one person, and their subjects as far as they were ever told."""
        records = [record, *(one for one in self.devices if one.owner is record)]
        return records, {subject for one in records for subject in one.subject_ids}

    async def _erase(self, who: Who) -> None:
        body = who.ids | {"create": False}
        answer = await self.running.post("/v1/subjects/resolve", body)
        if answer.status_code == 404:
            return
        # Before the link it is the user's, or where the user is unknown the visitor's.
        records, subject_ids = self._person(
            who.speaker if who.speaker.known or who.device.owner is not None else who.device
        )
        stored = {one for record in records for one in record.stored}
        subject = answer.json()["subject_id"]
        erased = set(self.running.gateway.control.person_of(subject))
        assert erased >= subject_ids
        held = self.running.gateway.event_log.events_of(tuple(erased))
        assert {str(one.event_id) for one in held} == stored
        before = sealed_events(self.folder / "events.sqlite")
        answer = await self.running.client.delete(
            f"/v1/subjects/{subject}", headers=self.running.bearer("admin")
        )
        assert answer.status_code == 200, answer.text
        receipt = answer.json()["receipt"]
        assert receipt["events_removed"] == len(stored)
        assert receipt["control_store_clean"]
        after = set(sealed_events(self.folder / "events.sqlite"))
        self.dead += [body for body in before if body not in after]
        self.gone |= erased
        self._forget(records)

    def _forget(self, records: list[Record]) -> None:
        for one in records:
            one.__init__(one.raw)  # type: ignore[misc]
        for device in self.devices:
            # A device that somebody else owns is recognised no more: it is nobody's from now on,
            # and what lies under it stays its owner's.
            if device.speaker in records and device.owner is not None:
                device.owner.stored |= device.stored
                device.owner.subject_ids |= device.subject_ids
                device.__init__(device.raw)  # type: ignore[misc]

    async def _check(self) -> None:
        """The log holds exactly what the model says, and nothing is left of who is gone."""
        log, control = self.running.gateway.event_log, self.running.gateway.control
        for record in self.records:
            held = list(log.events_of(tuple(record.subject_ids)))
            assert {str(one.event_id) for one in held} == record.stored
            assert all(set(one.purposes) & _STORES for one in held)
        assert found_in(self.folder, [*(one.raw for one in self.records), *self.gone]) == []
        assert opened_by_any(control, self.folder / "control.sqlite", self.dead) == 0
        for subject in self.gone:
            assert await self.running.gateway.features.read(subject) == {}


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("part", range(PARTS))
async def test_random_sequences_keep_what_was_agreed_to(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    erased = 0
    for first in range(part * SEQUENCES, (part + 1) * SEQUENCES, _PER_GATEWAY):
        folder = tmp_path / f"state-{first}"
        running = await start(state=folder)
        features = running.gateway.features
        reads: list[str] = []
        read = features.read_many

        async def told(
            subject_ids: list[str], read: Any = read, reads: list[str] = reads
        ) -> list[SubjectState]:
            reads += subject_ids
            found: list[SubjectState] = await read(subject_ids)
            return found

        monkeypatch.setattr(features, "read_many", told)
        for seed in range(first, first + _PER_GATEWAY):
            sequence = Sequence(running, folder, seed, reads)
            try:
                await sequence.run()
            except AssertionError as error:
                raise AssertionError(f"sequence {seed}: {error}") from error
            erased += len(sequence.gone)
        await running.stop()
    assert erased > SEQUENCES / 4
