"""`tillwise-serve restore`: put a backup back where nothing is yet, without those who were erased
since it was made."""

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.commands.audit import printed_lines
from serving.control import load_ledger, open_control, secrets_of
from serving.settings import Settings
from serving.state.audit import COMMAND_LINE, Entry
from serving.state.backup import Manifest, read_manifest, verify
from serving.state.event_log import SqliteEventLog
from serving.state.restore import Since, apply_lines, apply_receipts, lines_after
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import KEY_FILE, Secrets, load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL, EVENTS, LEDGER, SEED, SNAPSHOT, StateFolder

_STAGE = ".restoring"
_CONSENTS_ARE_OLD = (
    "receipts tell of erasures alone: whoever has withdrawn consent since the backup has it again, "
    "and keys revoked since then work again, until that is said anew; --audit would have done it"
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "restore",
        help="put a backup back, without those who were erased since",
        description="Say what came after the backup: --audit, --receipt or both; only where "
        "nobody was erased since, --as-of-backup.",
    )
    parser.add_argument("backup", type=Path, metavar="BACKUP", help="the folder of the backup")
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="LINES",
        help="what `audit show` printed later: erasures, consents and revoked keys are done again",
    )
    parser.add_argument(
        "--receipt",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a receipt of an erasure after the backup; may be given many times. Without --audit, "
        "consents and keys are as they were at the backup",
    )
    parser.add_argument(
        "--as-of-backup",
        action="store_true",
        help="nobody was erased, and no consent withdrawn, since the backup was made",
    )
    parser.add_argument(
        "--without-events",
        action="store_true",
        help="for a shop whose events go to a topic from now on: what they were is kept as "
        "features, as after a backfill",
    )
    add_folders(parser, "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Put it back; what is there already is never touched."""
    if args.as_of_backup == bool(args.audit or args.receipt):
        raise UserError(
            "who was erased after the backup must not come back: name the later audit lines "
            "(--audit) or the receipts (--receipt), or say --as-of-backup if there are none"
        )
    settings = settings_of(args)
    manifest = read_manifest(args.backup)
    with StateFolder(settings.state):
        _refuse_what_does_not_fit(settings, manifest, without_events=args.without_events)
        secrets = _secrets(settings, args.backup, manifest)
        verify(args.backup, manifest, secrets)
        stage = settings.state / _STAGE
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(mode=0o700)
        try:
            for name in manifest.files:
                shutil.copyfile(args.backup / name, stage / name)
                (stage / name).chmod(0o600)
            since = asyncio.run(_brought_up(stage, secrets, manifest, args))
            _put_in_place(settings, secrets, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    print(
        f"the backup of {manifest.made_at} is in place; done again: {since.erased} subjects "
        f"erased, {since.consents} consents, {since.keys_revoked} keys revoked"
    )
    figures = Figures("restore")
    if args.receipt and args.audit is None:
        print(f"tillwise-serve: warning: {_CONSENTS_ARE_OLD}", file=sys.stderr)
        figures.notes.append(_CONSENTS_ARE_OLD)
    counts = {"erased": since.erased, "consents": since.consents, "keys": since.keys_revoked}
    figures.add("done again", {name: [float(count)] for name, count in counts.items()})
    return figures


def _refuse_what_does_not_fit(
    settings: Settings, manifest: Manifest, *, without_events: bool
) -> None:
    if (settings.state / CONTROL).exists():
        raise UserError(f"state folder {settings.state} holds a control store: choose a fresh one")
    kept = manifest.event_log != "sqlite" or without_events
    if kept == (settings.event_log == "sqlite"):
        raise UserError(
            f"the backup's events are in {manifest.event_log}, and the setting "
            "TILLWISE_EVENT_LOG names another kind; --without-events keeps their features alone"
        )


def _secrets(settings: Settings, backup: Path, manifest: Manifest) -> Secrets:
    """The master keys by the settings, or else those in the backup; none is made."""
    named = settings.master_key_file or settings.state / KEY_FILE
    if settings.master_key is not None or named.is_file():
        return secrets_of(settings)
    if KEY_FILE not in manifest.files:
        raise UserError(
            f"the backup needs the master key {manifest.master}: set TILLWISE_MASTER_KEY or "
            f"TILLWISE_MASTER_KEY_FILE, or put it back as {named}"
        )
    return load_secrets(settings.state, None, backup / KEY_FILE)


async def _brought_up(
    stage: Path, secrets: Secrets, manifest: Manifest, args: argparse.Namespace
) -> Since:
    """Do again, in the copy, what came after it."""
    since = Since()
    control = SqliteControlStore(stage / CONTROL, secrets)
    try:
        if args.audit is not None:
            key = control.service_key("audit")
            later = lines_after(printed_lines(args.audit), manifest, key)
            await apply_lines(control, later, since)
        await apply_receipts(control, [_receipt(path) for path in args.receipt], since)
        detail = {"made_at": manifest.made_at, "erased": since.erased}
        at = SystemClock().now()
        await control.audit(Entry("store.restored", at, COMMAND_LINE, None, detail))
        if not await control.scrub(since.traces):
            raise UserError("what was erased could not be removed from the restored copy")
        if args.without_events:
            await _keep_features_alone(stage, control)
    finally:
        control.close()
    return since


async def _keep_features_alone(stage: Path, control: SqliteControlStore) -> None:
    """Snapshot and events become what an import leaves."""
    from serving.state.feature_store import MemoryFeatureStore

    keys = SubjectKeys(control)
    log = SqliteEventLog(stage / EVENTS, SealedCodec(keys))
    try:
        features = MemoryFeatureStore(stage, keys)
        features.restore(log)
        await features.snapshot()
    finally:
        log.close()
    for path in stage.glob(f"{EVENTS}*"):
        path.unlink()
    if (stage / SNAPSHOT).is_file():
        (stage / SNAPSHOT).replace(stage / SEED)


def _receipt(path: Path) -> Mapping[str, Any]:
    try:
        signed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        signed = None
    if not isinstance(signed, dict):
        raise UserError(f"{path}: is no receipt")
    return signed


def _put_in_place(settings: Settings, secrets: Secrets, stage: Path) -> None:
    """The control store last: without it there is nothing yet, and restoring may begin again."""
    if settings.master_key is not None or settings.master_key_file is not None:
        (stage / KEY_FILE).unlink(missing_ok=True)
    shared = settings.control_store != "sqlite"
    for path in stage.iterdir():
        if path.name != CONTROL and not (shared and path.name == LEDGER):
            path.replace(settings.state / path.name)
    if not shared:
        (stage / CONTROL).replace(settings.state / CONTROL)
        return
    from serving.state.postgres_control_store import PostgresControlStore

    control = open_control(settings, secrets)
    try:
        assert isinstance(control, PostgresControlStore)
        control.refuse_unless_new()
        if (stage / LEDGER).is_file():
            load_ledger(settings, stage / LEDGER)
        asyncio.run(control.load(stage / CONTROL))
    finally:
        control.close()
