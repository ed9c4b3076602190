"""The job that holds to the retention periods, by the injected clock."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from contract.clock import Clock, to_us
from serving.ingest.rights import Rights, Stores
from serving.retention import Retention
from serving.state.audit import GATEWAY
from serving.state.exports import delete_export

ANSWERS = timedelta(hours=24)  # as long as an Idempotency-Key counts


@dataclass(frozen=True)
class Removed:
    """What one run of the job removed."""

    behaviour: int = 0
    decisions: int = 0
    states: int = 0
    subjects: int = 0
    exports: int = 0
    audit: int = 0
    answers: int = 0


async def enforce(periods: Retention, stores: Stores, rights: Rights, clock: Clock) -> Removed:
    """Remove what is older than its period. Raises StoreError; what was done stays done."""
    now = clock.now()
    await rights.finish()
    log, control = stores.event_log, stores.control
    behaviour_before = now - timedelta(days=periods.behaviour)
    behaviour = await log.let_go("behaviour", behaviour_before.date())
    decisions_before = now - timedelta(days=periods.decisions)
    decisions = await log.let_go("decision", decisions_before.date())
    states = await stores.features.let_go(to_us(behaviour_before))
    subjects = 0
    idle = control.subjects_without_consent_since(now - timedelta(days=periods.subjects))
    idle_set = frozenset(idle)
    for subject_id in idle:
        person = control.person_of(subject_id)
        if idle_set.issuperset(person) and not await _in_use(stores, person):
            subjects += await rights.erase(subject_id, GATEWAY) is not None
    exports_before = now - timedelta(days=periods.exports)
    exports = [one for one in control.exports() if one.made_at < exports_before]
    for export in exports:
        await asyncio.to_thread(delete_export, export)
        await control.drop_export(export.export_id)
    audit, answers = await control.let_go(now - timedelta(days=periods.audit), now - ANSWERS)
    return Removed(behaviour, decisions, states, subjects, len(exports), audit, answers)


async def _in_use(stores: Stores, person: Sequence[str]) -> bool:
    """Whether anything is still held of what these subjects did."""
    for one in person:
        key = stores.control.subject_key(one)
        if key is not None and stores.event_log.holds(key.log_key):
            return True
        state = await stores.features.read(one)
        if any(len(rows) for rows in state.values()):
            return True
    return False
