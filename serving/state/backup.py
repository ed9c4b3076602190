"""A backup: copies of everything that a gateway remembers, and a manifest that says what they must
be, under a key that follows from the master key.

What follows from something is copied before it: feature snapshots before the event log, log and
coupons before the control store, which has the keys and the offers. So a backup lacks nothing that
it refers to, whatever the gateway does meanwhile; who is erased meanwhile has no key in it.
"""

import base64
import hashlib
import hmac
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from contract.errors import UserError
from serving.state import control_audit
from serving.state.audit import START
from serving.state.secrets import KEY_FILE, Secrets
from serving.state.sql_control_store import SqlControlStore
from serving.state.sqlite_writer import copy_file
from serving.state.state_folder import CONTROL, EVENTS, LEDGER, SEED, SNAPSHOT

MANIFEST = "backup.json"
FORM = 1
_PURPOSE = "backup"


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. `audit_number` and `audit_mac` are of the last line that it knows."""

    made_at: str
    event_log: str
    control_store: str
    master: str  # the version of the master key that its keys hang on
    audit_number: int
    audit_mac: str
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by name
    form: int = FORM


def write_backup(
    state: Path,
    control: SqlControlStore,
    secrets: Secrets,
    target: Path,
    *,
    at: datetime,
    event_log: str,
    control_store: str,
    save_ledger: Callable[[Path], None],
    with_master_key: bool,
) -> Manifest:
    """Write a backup of `state` into the new folder `target`; whole or not at all. `save_ledger`
    writes the coupon ledger to a path, if there is one.

    Raises UserError when `target` is not empty, StoreError and OSError.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is not empty; name a new folder")
    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    draft.mkdir(mode=0o700, parents=True)
    try:
        for name in (SEED, SNAPSHOT):
            if (state / name).is_file():  # replaced whole by the gateway, never changed
                shutil.copyfile(state / name, draft / name)
        if event_log == "sqlite" and (state / EVENTS).is_file():
            copy_file(state / EVENTS, draft / EVENTS)
        save_ledger(draft / LEDGER)
        control.save(draft / CONTROL)
        if with_master_key:
            keys = b"".join(base64.b64encode(key) + b"\n" for key in secrets.masters)
            (draft / KEY_FILE).write_bytes(keys)
        number, mac = _last_line(draft / CONTROL)
        files = {path.name: _digest(path) for path in sorted(draft.iterdir())}
        made = Manifest(
            at.isoformat(), event_log, control_store, secrets.newest, number, mac, files
        )
        (draft / MANIFEST).write_text(json.dumps(_sealed(made, secrets), indent=2) + "\n")
        _make_durable(draft)
        if target.exists():
            target.rmdir()
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


def read_manifest(folder: Path) -> Manifest:
    """What the backup says that it is; believe it after `verify`. Raises UserError."""
    try:
        held = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["backup"]
        if held["form"] > FORM:
            raise UserError(f"{folder}: was made by a newer version of Tillwise")
        return Manifest(**held)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: holds no backup, or its {MANIFEST} is damaged") from None


def verify(folder: Path, manifest: Manifest, secrets: Secrets) -> None:
    """Raises UserError when the backup is not as it was made, naming the file."""
    held = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    masters = [one for one in secrets.masters if secrets.version_of(one) == manifest.master]
    if not masters:
        raise UserError(f"{folder}: needs the master key {manifest.master}, which is not held here")
    wanted = _mac(manifest, Secrets((masters[0],)))
    if not hmac.compare_digest(str(held.get("mac")), wanted):
        raise UserError(f"{folder}: {MANIFEST} was changed, or made under another master key")
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder}: {name} is missing")
        if _digest(path) != digest:
            raise UserError(f"{folder}: {name} is damaged")


def _last_line(control: Path) -> tuple[int, str]:
    with closing(sqlite3.connect(control)) as connection:
        head = control_audit.head(connection)
    return (0, START) if head is None else (head.number, head.mac)


def _sealed(manifest: Manifest, secrets: Secrets) -> dict[str, Any]:
    return {"backup": asdict(manifest), "mac": _mac(manifest, secrets)}


def _mac(manifest: Manifest, secrets: Secrets) -> str:
    said = json.dumps(asdict(manifest), sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(secrets.derive(_PURPOSE), said, hashlib.sha256).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_durable(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o600)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
