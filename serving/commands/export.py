"""`tillwise-serve export`: the event log as Parquet, a file a day, to be trained on."""

import argparse
import asyncio
import os
import time
from pathlib import Path
from uuid import uuid4

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, secrets_of, settings_of
from serving.settings import Settings
from serving.state.control_store import Export
from serving.state.event_log import SqliteEventLog
from serving.state.exports import check_fresh, write_export
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import KEY_BYTES
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL, EVENTS


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("export", help="write the event log as Parquet for training")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    add_folders(parser, "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Write all events that may still be used; a gateway may be running."""
    settings = settings_of(args)
    if not (settings.state / EVENTS).is_file():
        raise UserError(f"state folder {settings.state} does not exist or holds no events")
    check_fresh(args.output)
    began = time.perf_counter()
    count = asyncio.run(_export(settings, args.output.resolve()))
    seconds = time.perf_counter() - began
    print(f"{count} events in {args.output}")
    figures = Figures("export")
    figures.add("events", {"count": [float(count)], "per_second": [count / seconds]})
    return figures


async def _export(settings: Settings, folder: Path) -> int:
    clock = SystemClock()
    control = SqliteControlStore(settings.state / CONTROL, secrets_of(settings), clock)
    try:
        event_log = SqliteEventLog(settings.state / EVENTS, SealedCodec(SubjectKeys(control)))
        try:
            export = Export(str(uuid4()), str(folder), clock.now(), os.urandom(KEY_BYTES))
            await control.add_export(export)
            events = (event for _, event in event_log.read_from(0))
            agreed: dict[str, frozenset[str]] = {}

            def purposes(subject_id: str) -> frozenset[str]:
                if subject_id not in agreed:
                    consent = control.consent_of(subject_id)
                    agreed[subject_id] = frozenset() if consent is None else consent.purposes
                return agreed[subject_id]

            return write_export(export, events, purposes)
        finally:
            event_log.close()
    finally:
        control.close()
