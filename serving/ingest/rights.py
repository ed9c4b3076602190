"""What a shopper may ask for: everything that is held about them, and that it is gone.

The order of an erasure is its proof. First the keys go, with the record of who the person was, in
one transaction: from then on nothing of theirs is written and nothing opens. Then what lies in the
other stores is removed, and the control store's files are looked at byte by byte. An erasure that
a crash cut short is finished at the next start.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from contract.clock import Clock, from_us, to_us
from contract.features import FEATURES, SubjectState
from contract.rows import Rows
from serving.ingest.accept import Ingest
from serving.state.audit import Actor, Entry
from serving.state.control_store import ControlStore, Erased, SubjectRecord
from serving.state.event_log import EventLog
from serving.state.exports import Removed, erase_from
from serving.state.feature_merge import merged
from serving.state.feature_store import FeatureStore
from serving.state.receipts import ReceiptSigner
from serving.state.sqlite_writer import StoreError

log = logging.getLogger(__name__)

ItemNames = Callable[[Iterable[int]], dict[int, str]]  # item keys of feature state to item ids
# The names of the segments of a state at a moment (microseconds), by the live release's rules.
SegmentNames = Callable[[SubjectState, int], tuple[str, ...]]


@dataclass(frozen=True)
class Stores:
    """Everywhere that something about a shopper may lie."""

    control: ControlStore
    event_log: EventLog
    features: FeatureStore


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
        states = {one: await self._stores.features.read(one) for one in subject_ids}
        return {
            "subject_id": subject_id,
            "made_at": self._clock.now().isoformat(),
            "subjects": [_record(one) for one in records],
            "features": {one: self._features(state) for one, state in states.items()},
            # As a decision would see it that knows nothing of where and when.
            "segments": list(self._segments(merged(states.values()), to_us(self._clock.now()))),
            "events": [one for one in events if one["event_name"] != "decision"],
            "decisions": [one for one in events if one["event_name"] == "decision"],
        }

    async def erase(self, subject_id: str, by: Actor) -> dict[str, Any] | None:
        """Erase the person and return the signed receipt; None when nobody is known by this id.

        Raises StoreError: then the keys may be gone already, and asking again is right; what could
        not be removed is removed later.
        """
        erased = await self._stores.control.erase(subject_id, by)
        if erased is None:
            return None
        # Whoever asked may go away; the rest is done all the same.
        return await asyncio.shield(asyncio.create_task(self._clean_up(subject_id, erased)))

    async def _clean_up(self, subject_id: str, erased: Erased) -> dict[str, Any]:
        control = self._stores.control
        # Batches that were accepted before the keys went may still be on their way to the features.
        await self._ingest.drain()
        removed = await self._stores.event_log.forget(erased.log_keys)
        forgotten = await self._forgotten(erased)
        self._forget_computed()  # from here on nothing of theirs can be read that it could come of
        exports = await asyncio.to_thread(erase_from, control.exports(), erased.subject_ids)
        clean = await control.scrub(erased.traces)
        if not clean:
            log.warning("an erasure could not look at all that the control store's files hold")
        if forgotten:
            await control.finish_erasures(erased.log_keys)
        receipt = _receipt(subject_id, erased, removed, exports, self._clock.now())
        receipt |= {"features_removed": forgotten, "control_store_clean": clean}
        return self._signer.sign(receipt)

    async def _forgotten(self, erased: Erased) -> bool:
        """Whether the feature store has let go of them; one that is away is told later."""
        try:
            await self._stores.features.forget(erased.subject_ids, erased.log_keys)
        except StoreError as error:
            log.warning("features that open no more are removed later: %s", error)
            return False
        return True

    async def finish(self) -> int:
        """Finish what a crash, or a store that was away, cut short; returns how many subjects that
        concerned. Raises StoreError."""
        log_keys = self._stores.control.unfinished_erasures()
        if log_keys:
            await self._stores.event_log.forget(log_keys)
            await self._stores.features.forget((), log_keys)
            await self._stores.control.finish_erasures(log_keys)
        return len(log_keys)

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
            if keys:
                one["item_id"] = items.get(keys[place], f"key {keys[place]:016x}")
            told.append(one)
        return told


_HIDDEN = frozenset({"occurred_us", "item_key", "event_key", "session_key", "position"})


def _record(record: SubjectRecord) -> dict[str, Any]:
    return {
        "subject_id": record.subject_id,
        "made_at": record.made_at.isoformat(),
        "linked_to": record.user_subject,
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
    subject_id: str, erased: Erased, removed: int, exports: Removed, at: datetime
) -> dict[str, Any]:
    return {
        "receipt_id": str(uuid4()),
        "subject_id": subject_id,
        "subject_ids": sorted(erased.subject_ids),
        "erased_at": at.isoformat(),
        "keys_destroyed": len(erased.log_keys),
        "events_removed": removed,
        "export_rows_removed": exports.rows,
        "exports_not_found": exports.missing,
        "audit_line": {"number": erased.line.number, "mac": erased.line.mac},
    }
