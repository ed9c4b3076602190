"""What happened after a backup was made, applied to what is in it: a restored store must not bring
back anybody who was erased, any consent that was withdrawn, or any key that was revoked."""

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from contract.errors import UserError
from serving.state.audit import COMMAND_LINE, START, Line, fault_behind
from serving.state.backup import Manifest
from serving.state.control_records import Consent, Erased
from serving.state.receipts import InvalidReceipt, ReceiptSigner, verify
from serving.state.sql_control_store import SqlControlStore

_AT_ONCE = 256  # written together
_SOURCE = "restored from the audit log"


@dataclass
class Since:
    """What was done again."""

    erased: int = 0
    consents: int = 0
    keys_revoked: int = 0
    traces: list[bytes] = field(default_factory=list)

    def count_erased(self, erased: Erased | None) -> None:
        """An erasure was done again, if there was anybody."""
        if erased is not None:
            self.erased += len(erased.subject_ids)
            self.traces += erased.traces


def lines_after(lines: Iterable[Line], manifest: Manifest, key: bytes) -> list[Line]:
    """The lines that were written after the backup. Raises UserError when they do not follow on its
    last one: then they are of another log, or some are missing."""
    held = list(lines)
    number, mac = manifest.audit_number, manifest.audit_mac
    later = [line for line in held if line.number > number]
    known = any((line.number, line.mac) == (number, mac) for line in held)
    if not later and not known and mac != START:
        raise UserError(f"audit lines: line {number}, the last of the backup, is not among them")
    fault = fault_behind(later, number, mac, key)
    if fault is not None:
        raise UserError(f"audit lines after the backup: {fault}")
    return later


async def apply_lines(control: SqlControlStore, lines: Sequence[Line], since: Since) -> None:
    """Do again what `lines` say of people and keys that the backup knows."""
    subjects = control.audit_names()
    rest = iter([step for line in lines for step in _steps(control, line, subjects, since)])
    while some := list(islice(rest, _AT_ONCE)):
        await asyncio.gather(*some)  # in their order: one thread writes


async def apply_receipts(
    control: SqlControlStore, receipts: Iterable[Mapping[str, Any]], since: Since
) -> None:
    """Erase again those of whom `receipts` say that they were. Raises UserError for one that this
    store did not sign."""
    public_key = ReceiptSigner(control.service_key("receipt")).public_key
    for signed in receipts:
        try:
            receipt = verify(signed, public_key)
        except InvalidReceipt as problem:
            raise UserError(f"receipt: {problem}") from None
        for subject_id in receipt["subject_ids"]:
            since.count_erased(await control.erase(subject_id, COMMAND_LINE))


def _steps(
    control: SqlControlStore, line: Line, subjects: Mapping[str, str], since: Since
) -> list[Awaitable[None]]:
    said = json.loads(line.text)
    detail = said["detail"]
    names = [said["subject"], *detail.get("others", ())]
    known = [subjects[name] for name in names if name in subjects]
    at = datetime.fromisoformat(said["at"])
    match said["action"]:
        case "subject.erased":
            return [_erase(control, one, since) for one in known]
        case "consent.recorded":
            consent = Consent(frozenset(detail["purposes"]), at, _SOURCE)
            return [_record(control, one, consent, since) for one in known]
        case "key.revoked":
            return [_revoke(control, detail["key_id"], at, since)]
    return []


async def _erase(control: SqlControlStore, subject_id: str, since: Since) -> None:
    since.count_erased(await control.erase(subject_id, COMMAND_LINE))


async def _record(
    control: SqlControlStore, subject_id: str, consent: Consent, since: Since
) -> None:
    await control.record_consent(subject_id, consent, COMMAND_LINE)
    since.consents += 1


async def _revoke(control: SqlControlStore, key_id: str, at: datetime, since: Since) -> None:
    since.keys_revoked += await control.revoke_key(key_id, at, COMMAND_LINE)
