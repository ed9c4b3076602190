"""Random sequences of grant, withdraw, event, decide, login and erase, held against a small model
of what was agreed to: no event is stored and no history used without consent, and who was erased is
found nowhere. `TILLWISE_PROVE` runs ten thousand sequences."""

import os
import random
from dataclasses import dataclass, field
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
_STEPS = (4, 12)
_VISITORS = 2
ACTIONS = ("grant", "withdraw", "partly", "event", "event", "event", "decide", "decide", "erase")
_STORES = {"analytics", "personalization"}


@dataclass
class Person:
    """What the model knows of a shopper: one device, logged in from some time on or never."""

    visitor: str
    user: str
    logged_in: bool = False
    agreed: frozenset[str] | None = None  # None: never said anything
    stored: set[str] = field(default_factory=set)  # event ids
    subject_ids: set[str] = field(default_factory=set)

    @property
    def who(self) -> dict[str, Any]:
        return {"visitor_id": self.visitor, "user_id": self.user if self.logged_in else None}

    def in_effect(self, said: frozenset[str] | None, *, gpc: bool) -> frozenset[str]:
        """As the public rules have it; a first word is recorded if it lets anything be kept."""
        if gpc:
            return frozenset()
        if self.agreed is None:
            found = said or frozenset()
            if found & _STORES:
                self.agreed = found
            return found
        return self.agreed if said is None else self.agreed & said


class Sequence:
    """One random sequence against one gateway."""

    def __init__(self, running: Running, folder: Path, seed: int, reads: list[str]) -> None:
        self.running, self.folder, self.reads = running, folder, reads
        self.chance = random.Random(seed)
        self.people = [self._new(seed, number) for number in range(_VISITORS)]
        self.gone: set[str] = set()
        self.dead: list[bytes] = []  # sealed bodies of whoever was erased

    def _new(self, seed: int, number: int) -> Person:
        return Person(
            f"raw-visitor-{seed}-{number}-{uuid4()}", f"raw-user-{seed}-{number}-{uuid4()}"
        )

    async def run(self) -> None:
        for _ in range(self.chance.randint(*_STEPS)):
            person = self.chance.choice(self.people)
            if not person.logged_in and self.chance.random() < 0.15:
                person.logged_in = True
            await getattr(self, f"_{self.chance.choice(ACTIONS)}")(person)
        await self._check()

    async def _resolve(self, person: Person) -> str:
        answer = await self.running.post("/v1/subjects/resolve", person.who)
        subject: str = answer.json()["subject_id"]
        person.subject_ids |= set(self.running.gateway.control.person_of(subject))
        return subject

    async def _say(self, person: Person, agreed: frozenset[str]) -> None:
        await say(self.running, await self._resolve(person), **dict.fromkeys(agreed, True))
        person.agreed = agreed

    async def _grant(self, person: Person) -> None:
        await self._say(person, frozenset(ALL))

    async def _withdraw(self, person: Person) -> None:
        await self._say(person, frozenset())

    async def _partly(self, person: Person) -> None:
        names = [name for name in ALL if self.chance.random() < 0.5]
        await self._say(person, frozenset(names))

    def _word(self) -> tuple[frozenset[str] | None, bool]:
        """What a request says itself."""
        said = None
        if self.chance.random() < 0.6:
            said = frozenset(name for name in ALL if self.chance.random() < 0.6)
        return said, self.chance.random() < 0.1

    def _as_sent(self, said: frozenset[str] | None) -> dict[str, bool] | None:
        return None if said is None else {name: name in said for name in ALL}

    async def _event(self, person: Person) -> None:
        said, gpc = self._word()
        sent = event(consent=self._as_sent(said), gpc=gpc, **person.who)
        answer = await self.running.post("/v1/events", {"events": [sent]})
        allowed = bool(person.in_effect(said, gpc=gpc) & _STORES)
        assert answer.json()["results"][0]["status"] == ("accepted" if allowed else "rejected")
        if allowed:
            person.stored.add(sent["event_id"])
            await self._resolve(person)

    async def _decide(self, person: Person) -> None:
        said, gpc = self._word()
        self.reads.clear()
        answer = await self.running.decide(consent=self._as_sent(said), gpc=gpc, **person.who)
        assert answer.status_code == 200
        purposes = person.in_effect(said, gpc=gpc)
        await self.running.quiet()
        if "personalization" not in purposes:
            assert self.reads == [], "history was read without consent"
        assert not set(self.reads) & self.gone
        if purposes & _STORES:
            await self._resolve(person)
            assert set(self.reads) <= person.subject_ids
        if "analytics" in purposes:
            person.stored.add(answer.json()["decision_id"])

    async def _erase(self, person: Person) -> None:
        body = person.who | {"create": False}
        answer = await self.running.post("/v1/subjects/resolve", body)
        if answer.status_code == 404:
            return
        subject = answer.json()["subject_id"]
        erased = set(self.running.gateway.control.person_of(subject))
        assert erased >= person.subject_ids
        held = self.running.gateway.event_log.events_of(tuple(erased))
        assert {str(one.event_id) for one in held} == person.stored
        before = sealed_events(self.folder / "events.sqlite")
        answer = await self.running.client.delete(
            f"/v1/subjects/{subject}", headers=self.running.bearer("admin")
        )
        assert answer.status_code == 200, answer.text
        receipt = answer.json()["receipt"]
        assert receipt["events_removed"] == len(person.stored)
        assert receipt["control_store_clean"]
        after = set(sealed_events(self.folder / "events.sqlite"))
        self.dead += [body for body in before if body not in after]
        self.gone |= erased
        person.agreed, person.stored, person.subject_ids = None, set(), set()

    async def _check(self) -> None:
        """The log holds exactly what the model says, and nothing is left of who is gone."""
        log, control = self.running.gateway.event_log, self.running.gateway.control
        for person in self.people:
            held = list(log.events_of(tuple(person.subject_ids)))
            assert {str(one.event_id) for one in held} == person.stored
            assert all(set(one.purposes) & _STORES for one in held)
        raw = [name for person in self.people for name in (person.visitor, person.user)]
        assert found_in(self.folder, [*raw, *self.gone]) == []
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
