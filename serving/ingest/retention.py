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


EVERY = timedelta(days=1)
_JOB = "retention"


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
    for subject_id in await _unused(stores, idle):
        subjects += await rights.erase(subject_id, GATEWAY) is not None
    exports_before = now - timedelta(days=periods.exports)
    exports = [one for one in control.exports() if one.made_at < exports_before]
    for export in exports:
        await asyncio.to_thread(delete_export, export)
        await control.drop_export(export.export_id)
    await rights.sweep_exports()
    audit, answers = await control.let_go(now - timedelta(days=periods.audit), now - ANSWERS)
    await control.note_run(_JOB, now)
    return Removed(behaviour, decisions, states, subjects, len(exports), audit, answers)


async def enforce_when_due(
    periods: Retention, stores: Stores, rights: Rights, clock: Clock
) -> Removed | None:
    """The same if the last run was a day ago, by whichever gateway and process: one that is started
    anew every night must not put it off for ever. A new store is due after its first day. Raises
    StoreError."""
    now, last = clock.now(), stores.control.last_run(_JOB)
    if last is None:
        await stores.control.note_run(_JOB, now)
        return None
    if timedelta(0) <= now - last < EVERY:
        return None
    return await enforce(periods, stores, rights, clock)


async def _unused(stores: Stores, idle: Sequence[str]) -> list[str]:
    """Those of these subjects of whom, as whole persons, nothing is held any more that they did."""
    keys = {one: key.log_key for one in idle if (key := stores.control.subject_key(one))}
    holding = await asyncio.to_thread(stores.event_log.holding, list(keys.values()))
    left = {one for one in idle if keys.get(one) not in holding}
    unused = []
    for subject_id in idle:
        person = stores.control.person_of(subject_id)
        if left.issuperset(person) and not await _remembered(stores, person):
            unused.append(subject_id)
    return unused


async def _remembered(stores: Stores, person: Sequence[str]) -> bool:
    states = [await stores.features.read(one) for one in person]
    return any(len(rows) for state in states for rows in state.values())
