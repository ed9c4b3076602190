"""`tillwise-serve export`: the event log as Parquet, for training. Run again it adds what is new,
and takes out what is no longer agreed to; a gateway may be running on the log meanwhile."""

import argparse
import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from contract.catalogue import CATALOGUE_COLUMNS
from contract.clock import SystemClock
from contract.errors import UserError
from contract.event_parts import PARTS_FILE
from contract.events import Event
from contract.figures import Figures
from contract.manifest import CATALOGUE
from contract.rollout_file import live_release_id
from contract.whole_file import replacing
from serving.commands.arguments import add_folders, add_json, require_interval, settings_of
from serving.commands.ending import told_to_end
from serving.commands.parquet import read_columns
from serving.control import open_control, require_control, secrets_of
from serving.monitoring.http import configure_logging
from serving.settings import Settings
from serving.state.control_records import Export
from serving.state.control_store import ControlStore
from serving.state.exports import erase_from, keep_only, narrow, row_of
from serving.state.group_writer import StoreError
from serving.state.parquet_parts import EVENTS_FOLDER, ParquetParts, export, open_parts
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import KEY_BYTES
from serving.state.state_folder import EVENTS

log = logging.getLogger(__name__)

_AGAIN_S = 300.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("export", help="write the event log as Parquet for training")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to")
    parser.add_argument(
        "--catalogue",
        type=Path,
        metavar="FILE",
        help="the catalogue to put beside the events (default: what DIR has, or else that of the "
        "live release)",
    )
    parser.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help="again and again, until told to end; what fails is said and tried again",
    )
    add_folders(parser, "state", "releases")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Bring the export up to the end of the log, once or until SIGTERM or SIGINT."""
    settings = settings_of(args)
    if args.every is None:
        return _bring_up(settings, args)
    require_interval("--every", args.every, most_days=30)
    configure_logging(settings.log_level)
    ended, wait_s = told_to_end(), 0.0
    while not ended.wait(wait_s):
        try:
            _bring_up(settings, args)
            wait_s = args.every
        except (UserError, StoreError, OSError, sqlite3.Error) as error:
            log.error("%s; trying again", error)
            wait_s = min(args.every, _AGAIN_S)
    return Figures("export")


def _bring_up(settings: Settings, args: argparse.Namespace) -> Figures:
    require_control(settings)
    if settings.event_log == "sqlite" and not (settings.state / EVENTS).is_file():
        raise UserError(f"state folder {settings.state} holds no event log")
    catalogue = _catalogue(settings, args.output, args.catalogue)
    began = time.perf_counter()
    control = open_control(settings, secrets_of(settings), SystemClock())
    try:
        done = _brought_up(settings, control, args.output)
    finally:
        control.close()
    if catalogue is not None:
        with replacing(args.output / CATALOGUE) as file:
            pq.write_table(catalogue, file, compression="zstd")
    seconds = time.perf_counter() - began
    print(f"{args.output}: {done.added} events more, {done.files} files in all ({seconds:.1f} s)")
    figures = Figures("export")
    counts = {
        "events": [float(done.added)],
        "read": [float(done.read)],
        "files": [float(done.files)],
        "left_out": [float(done.left_out)],
    }
    figures.add("export", {**counts, "per_second": [done.read / seconds]}, seconds=seconds)
    if done.left_out:
        figures.notes.append(f"{done.left_out} events left out: their time is none in UTC")
    return figures


@dataclass(frozen=True)
class _Done:
    """Events read, rows added, files in all, and events that no file can hold."""

    read: int
    added: int
    files: int
    left_out: int


def _brought_up(settings: Settings, control: ControlStore, output: Path) -> _Done:
    from serving.stores import open_event_log  # only here: the compiled loops come along

    keys = SubjectKeys(control)
    event_log = open_event_log(settings, SealedCodec(keys))
    try:
        with open_parts(output, event_log.log_id) as parts:
            registered = _registered(control, output.resolve(), parts)
            agreed = _agreed(control)
            # An erasure may have missed this folder: a disk that was away or full, a crash.
            keep_only(registered, control.subject_ids)
            narrow(registered, control.subject_ids(), agreed)
            row = row_of(registered, agreed)

            def after(events: Sequence[Event]) -> None:
                # Whoever was erased meanwhile was looked for before this round was there.
                gone = keys.erased({str(one.subject_id) for one in events})
                if gone:
                    erase_from([registered], gone)

            read, added = export(event_log, parts, row=row, after=after)
            return _Done(read, added, len(parts.held.parts), parts.left_out)
    finally:
        event_log.close()


def _registered(control: ControlStore, output: Path, parts: ParquetParts) -> Export:
    """The export in `output` as erasures know it, registered before its first file is written."""
    for known in control.exports():
        if known.folder == str(output):
            return known
    if parts.held.rounds:
        raise UserError(
            f"{output / EVENTS_FOLDER}: {PARTS_FILE} is of an export that is not registered here, "
            "or was moved; choose another --output"
        )
    made = Export(str(uuid4()), str(output), SystemClock().now(), os.urandom(KEY_BYTES))
    asyncio.run(control.add_export(made))
    return made


def _agreed(control: ControlStore) -> Callable[[str], frozenset[str]]:
    """What subjects agree to now, asked once for each."""
    known: dict[str, frozenset[str]] = {}

    def purposes(subject_id: str) -> frozenset[str]:
        if subject_id not in known:
            consent = control.consent_of(subject_id)
            known[subject_id] = frozenset() if consent is None else consent.purposes
        return known[subject_id]

    return purposes


def _catalogue(settings: Settings, output: Path, named: Path | None) -> pa.Table | None:
    """The catalogue to be written; None where there is one already and no other was named."""
    if named is None and (output / CATALOGUE).is_file():
        return None
    if named is None:
        named = settings.releases / live_release_id(settings.releases) / CATALOGUE
    return read_columns(named, tuple(CATALOGUE_COLUMNS))
