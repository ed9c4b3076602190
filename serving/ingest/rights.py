"""What a shopper may ask for: everything that is held about them, and that it is gone.

The order of an erasure is its proof. First the keys go, with the record of who the person was, in
one transaction: from then on nothing of theirs is written and nothing opens. Then what lies in the
other stores is removed, and the control store's files are looked at byte by byte. What of this can
not be done at once is kept as unfinished and tried again, every few seconds and at each start.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

from contract.clock import Clock, from_us, to_us
from contract.features import FEATURES, SubjectState
from contract.rows import Rows
from serving.ingest.accept import Ingest
from serving.state.audit import Actor, Entry
from serving.state.control_records import Erased, SubjectRecord
from serving.state.control_store import ControlStore
from serving.state.event_log import EventLog
from serving.state.exports import erase_from, is_there, keep_only
from serving.state.fact_file import FactFile
from serving.state.feature_merge import merged
from serving.state.feature_store import FeatureStore
from serving.state.receipts import ReceiptSigner
from serving.state.sqlite_writer import StoreError

if TYPE_CHECKING:  # commands that only erase do without the coupon ledger's database
    from serving.ingest.held_beside import HeldBeside

log = logging.getLogger(__name__)

# Longer than a round of a worker, which begins with those who were erased.
_ELSEWHERE = timedelta(minutes=5)
# A worker says every minute that it is there. One that has not for so long is not waited for.
_LOST = timedelta(minutes=15)

ItemNames = Callable[[Iterable[int]], dict[int, str]]  # item keys of feature state to item ids
# The names of the segments of a state at a moment (microseconds), by the live release's rules.
SegmentNames = Callable[[SubjectState, int], tuple[str, ...]]


@dataclass(frozen=True)
class Stores:
    """Everywhere that something about a shopper may lie."""

    control: ControlStore
    event_log: EventLog
    features: FeatureStore
    facts: FactFile


class Rights:
    """Answers for the stores of one gateway."""

    def __init__(
        self,
        stores: Stores,
        ingest: Ingest,
        clock: Clock,
        signer: ReceiptSigner,
        items: ItemNames,
        segments: SegmentNames,
        forget_computed: Callable[[], None] = lambda: None,
        held_beside: "HeldBeside | None" = None,
    ) -> None:
        """`forget_computed`: let go of all that was computed from anybody's behaviour and is held
        in memory to be quick."""
        self._stores = stores
        self._ingest = ingest
        self._clock = clock
        self._signer = signer
        self._items = items
        self._segments = segments
        self._forget_computed = forget_computed
        self._held_beside = held_beside
        self._cleaning = asyncio.Lock()  # of two at once each would undo what the other noted

    async def about(self, subject_id: str, by: Actor) -> dict[str, Any] | None:
        """Everything that is held about the person, to be read by a person; None when nobody is
        known by this id. Written in the audit log. Raises StoreError."""
        control = self._stores.control
        # On a thread: the audit log may lie on another machine.
        records = await asyncio.to_thread(self._records, subject_id)
        if not records:
            return None
        name = records[0].audit_name
        await control.audit(Entry("subject.exported", self._clock.now(), by, name))
        subject_ids = tuple(one.subject_id for one in records)
        events = await asyncio.to_thread(self._events, subject_ids)
        decisions = [one for one in events if one["event_name"] == "decision"]
        states = {one: await self._stores.features.read(one) for one in subject_ids}
        beside: dict[str, Any] = {}
        if self._held_beside is not None:
            keys = list(control.subject_keys(subject_ids=subject_ids))
            beside = await self._held_beside.of(keys, [one["event_id"] for one in decisions])
        return {
            "subject_id": subject_id,
            "made_at": self._clock.now().isoformat(),
            "subjects": [_record(one) for one in records],
            "features": {one: self._features(state) for one, state in states.items()},
            # As a decision would see it that knows nothing of where and when.
            "segments": list(self._segments(merged(states.values()), to_us(self._clock.now()))),
            "events": [one for one in events if one["event_name"] != "decision"],
            "decisions": decisions,
            **beside,
        }

    async def erase(self, subject_id: str, by: Actor) -> dict[str, Any] | None:
        """Erase the person and return the signed receipt; None when nobody is known by this id.

        Raises StoreError: then the keys may be gone already, and asking again goes on with it; so
        does `finish`. The receipt says whether anything is left.
        """
        control = self._stores.control
        erased = await control.erase(subject_id, by)
        if erased is None:  # it may have been begun
            kept = [one for one in control.erasures_kept() if subject_id in one.subject_ids]
            if not kept:
                return None
            erased = kept[0]
        # Whoever asked may go away; the rest is done all the same.
        return await asyncio.shield(asyncio.create_task(self._receipted(subject_id, erased)))

    async def _receipted(self, subject_id: str, erased: Erased) -> dict[str, Any]:
        control = self._stores.control
        async with self._cleaning:
            known = {one.erasure_id: one for one in control.erasures_kept()}
            erased, problem = await self._clean_up(known.get(erased.erasure_id, erased))
            if problem is not None:
                raise problem
            if erased.finished:
                await control.drop_erasure(erased.erasure_id)
        now = self._clock.now()
        elsewhere = None if erased.facts_gone and not erased.keepers_lost else now + _ELSEWHERE
        return self._signer.sign(_receipt(subject_id, erased, now, elsewhere))

    async def _clean_up(self, erased: Erased) -> tuple[Erased, StoreError | None]:
        """Do what is left of it, as far as that can be done now; how far it came, and what stood in
        the way other than that a shared feature store or an export is away."""
        control, problem, before = self._stores.control, None, erased
        # Batches that were accepted before the keys went may still be on their way to the features.
        await self._ingest.drain()
        if not erased.features_gone:
            erased = replace(erased, features_gone=await self._forgotten(erased))
        if not erased.facts_gone:
            erased = await asyncio.to_thread(self._without_facts, erased)
        self._forget_computed()  # from here on nothing of theirs can be read that it could come of
        try:
            erased = await self._without_events(erased)
        except StoreError as error:
            problem = error
        erased, unwritten = await asyncio.to_thread(self._without_rows, erased)
        if not erased.scrubbed:
            clean = await control.scrub(erased.traces)
            if not clean:
                log.warning("an erasure could not look at all that the control store's files hold")
            erased = replace(erased, scrubbed=True, clean=clean)
        if erased.finished:
            erased = replace(erased, traces=())
        if erased != before:
            await control.note_erasure(erased)
        return erased, problem or unwritten

    async def _without_events(self, erased: Erased) -> Erased:
        if not erased.events_gone:
            removed = await self._stores.event_log.forget(erased.log_keys)
            removed += erased.events_removed
            erased = replace(erased, events_gone=True, events_removed=removed)
        if erased.features_gone:
            await self._stores.control.finish_erasures(erased.log_keys)
        return erased

    def _without_facts(self, erased: Erased) -> Erased:
        """Remove them from the file here; of the others their workers say when they have. One that
        was not heard of for long holds them until it runs again."""
        facts, behind = self._stores.facts, []
        here = facts.forget(erased.log_keys)
        if not facts.alone:
            own = facts.keeper_id()
            behind = [
                one
                for one in self._stores.control.fact_keepers()
                if one.keeper_id != own and one.erasures < erased.number
            ]
        lost_before = self._clock.now() - _LOST
        lost = [one for one in behind if one.said_at < lost_before]
        return replace(erased, facts_gone=here and len(behind) == len(lost), keepers_lost=len(lost))

    def _without_rows(self, erased: Erased) -> tuple[Erased, StoreError | None]:
        """Look through those of the exports that are there; one that is not may be on a disk that
        comes back, and stays to be looked through as long as it is registered."""
        left, rows, problem = [], erased.export_rows_removed, None
        for export in self._stores.control.exports():
            if export.export_id not in erased.exports:
                continue
            try:
                done = erase_from([export], erased.subject_ids)
            except (OSError, pa.ArrowException) as error:
                log.warning("export %s still holds somebody erased: %s", export.export_id, error)
                problem = StoreError("an export could not be written anew; ask again")
                left.append(export.export_id)
                continue
            rows += done.rows
            if done.missing:
                left.append(export.export_id)
        return replace(erased, exports=tuple(left), export_rows_removed=rows), problem

    async def _forgotten(self, erased: Erased) -> bool:
        """Whether the feature store has let go of them; one that is away is told later."""
        try:
            await self._stores.features.forget(erased.subject_ids, erased.log_keys)
        except StoreError as error:
            log.warning("features that open no more are removed later: %s", error)
            return False
        return True

    async def finish(self) -> int:
        """Finish what a crash, or a store or export that was away, cut short, as far as that can be
        done now; returns how many subjects that concerned. Raises StoreError."""
        control = self._stores.control
        async with self._cleaning:
            count, problem = 0, None
            for erased in control.erasures_kept():
                if await self._can_go_on(erased):
                    _, found = await self._clean_up(erased)
                    problem = problem or found
                    count += len(erased.log_keys)
            if problem is not None:
                raise problem
            # Begun by a version that kept no more of an erasure than this.
            known = {key for one in control.erasures_kept() for key in one.log_keys}
            log_keys = [key for key in control.unfinished_erasures() if key not in known]
            if log_keys:
                await self._stores.event_log.forget(log_keys)
                await self._stores.features.forget((), log_keys)
                await control.finish_erasures(log_keys)
            return count + len(log_keys)

    async def sweep_exports(self) -> None:
        """Take everybody who is no subject any more out of the exports that are there: one may have
        been put back from a copy."""
        control = self._stores.control
        for export in control.exports():
            try:
                rows = await asyncio.to_thread(keep_only, export, control.subject_ids)
            except (OSError, pa.ArrowException) as error:
                log.warning("export %s could not be looked through: %s", export.export_id, error)
            else:
                if rows:
                    log.warning("export %s: %d rows of nobody removed", export.export_id, rows)

    async def _can_go_on(self, erased: Erased) -> bool:
        """Whether anything is left to do but wait for exports that are away, or for workers."""
        if not replace(erased, exports=(), facts_gone=True).finished:
            return True
        if not erased.facts_gone:
            now = await asyncio.to_thread(self._without_facts, erased)
            if now.facts_gone:
                return True
        known = {one.export_id: one for one in self._stores.control.exports()}
        return any(one not in known or is_there(known[one]) for one in erased.exports)

    def _records(self, subject_id: str) -> list[SubjectRecord]:
        control = self._stores.control
        person = control.person_of(subject_id)
        return [found for one in person if (found := control.record_of(one)) is not None]

    def _events(self, subject_ids: tuple[str, ...]) -> list[dict[str, Any]]:
        events = self._stores.event_log.events_of(subject_ids)
        return [event.model_dump(mode="json", exclude_none=True) for event in events]

    def _features(self, state: SubjectState) -> dict[str, list[dict[str, Any]]]:
        return {
            feature.name: self._rows(state[feature.name])
            for feature in FEATURES
            if feature.name in state
        }

    def _rows(self, rows: Rows) -> list[dict[str, Any]]:
        names = rows.dtype.names or ()
        keys = rows["item_key"].tolist() if "item_key" in names else []
        items = self._items(keys)
        told = []
        for place, row in enumerate(rows):
            one: dict[str, Any] = {"occurred_at": from_us(row["occurred_us"]).isoformat()}
            one |= {name: row[name].tolist() for name in names if name not in _HIDDEN}
            if keys and keys[place]:  # a row may be of an event as a whole
                one["item_id"] = items.get(keys[place], f"key {keys[place]:016x}")
            told.append(one)
        return told


_HIDDEN = frozenset({"occurred_us", "item_key", "event_key", "session_key", "position"})


def _record(record: SubjectRecord) -> dict[str, Any]:
    return {
        "subject_id": record.subject_id,
        "made_at": record.made_at.isoformat(),
        # Who else used the device meanwhile is not this person's to know.
        "linked_to": record.user_subject if record.user_subject == record.history_owner else None,
        "history_read_with": record.history_owner,
        "consent": [
            {
                "purposes": sorted(consent.purposes),
                "recorded_at": consent.recorded_at.isoformat(),
                "source": consent.source,
                "wording_version": consent.wording_version,
            }
            for consent in record.consents
        ],
        "audit": [json.loads(line.text) for line in record.audit],
    }


def _receipt(
    subject_id: str, erased: Erased, at: datetime, elsewhere: datetime | None
) -> dict[str, Any]:
    return {
        "receipt_id": str(uuid4()),
        "subject_id": subject_id,
        "subject_ids": sorted(erased.subject_ids),
        "erased_at": at.isoformat(),
        "keys_destroyed": len(erased.log_keys),
        "events_removed": erased.events_removed,
        "export_rows_removed": erased.export_rows_removed,
        "exports_not_found": len(erased.exports),
        "features_removed": erased.features_gone,
        "facts_removed": erased.facts_gone,
        "facts_elsewhere_until": None if elsewhere is None else elsewhere.isoformat(),
        "control_store_clean": erased.clean,
        "finished": erased.finished,
        "audit_line": {"number": erased.line.number, "mac": erased.line.mac},
    }
