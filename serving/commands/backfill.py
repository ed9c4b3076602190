"""`tillwise-serve backfill`: give a fresh state folder the history of an import.

Subjects and their consent go into the control store; the events become features directly, without
passing through the event log, which holds what this gateway itself has seen.
"""

import argparse
import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import Clock, SystemClock, to_us
from contract.consent import pseudonymise
from contract.errors import UserError
from contract.figures import Figures
from contract.frames import EXPLODED_COLUMNS, explode
from contract.keyed_hash import KeyedHash
from serving.commands.arguments import add_folders, add_json, moment, settings_of
from serving.commands.parquet import read_columns
from serving.control import open_control, secrets_of
from serving.settings import Settings
from serving.state.control_records import Consent
from serving.state.sealing import SubjectKeys
from serving.state.secrets import Pseudonym, Secrets
from serving.state.sql_control_store import SqlControlStore
from serving.state.state_folder import SEED, SNAPSHOT, StateFolder

NOTE = "backfill"


class SeededElsewhere(UserError):  # noqa: N818 - it names what was found
    """The state folder holds the history of another import."""


_AGREED = frozenset({"analytics", "personalization"})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("backfill", help="seed a fresh state folder from an import")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="an import")
    parser.add_argument("--until", metavar="TIME", help="only events before this time (UTC)")
    add_folders(parser, "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Seed the state folder, or say that it was seeded from these very files already."""
    until = None if args.until is None else moment(args.until)
    figures = backfill(settings_of(args), args.data, until, SystemClock())
    print(figures.table())
    return figures


def backfill(settings: Settings, source: Path, until: datetime | None, clock: Clock) -> Figures:
    """Seed `settings.state` from `source` with the events before `until`.

    Raises UserError when a file is missing or malformed, and when the folder was seeded from
    something else.
    """
    # Only here: they bring the compiled loops along, which help can do without.
    from contract.features import replay
    from serving.state.snapshot import is_plain, is_readable, write_snapshot

    began = time.perf_counter()
    subjects_file, event_files = _files(source)
    mark = _digest([subjects_file, *event_files], until)
    figures = Figures("backfill")
    with StateFolder(settings.state):
        secrets = secrets_of(settings)
        control = open_control(settings, secrets, clock)
        try:
            held = control.note(NOTE)
            if is_plain(settings.state / SEED):
                raise SeededElsewhere(
                    f"state folder {settings.state} was seeded by an earlier version, unencrypted; "
                    "run `tillwise-serve migrate` once"
                )
            if held == mark and is_readable(settings.state / SEED, SubjectKeys(control)):
                figures.notes.append("skipped: the state folder holds these files already")
                return figures
            if held not in (None, mark):
                raise SeededElsewhere(
                    f"state folder {settings.state} was seeded from other files; "
                    "choose a fresh one with --state"
                )
            print(f"reading the history in {source} ...", file=sys.stderr, flush=True)
            table = _events(event_files, until)
            print(f"making features of {len(table)} events ...", file=sys.stderr, flush=True)
            states = replay(_exploded(table))
            subjects = 0
            if held is None:  # first, because states are sealed under the subjects' keys
                subjects = asyncio.run(_import(control, secrets, subjects_file, mark, clock))
            write_snapshot(settings.state / SEED, states, 0, SubjectKeys(control))
            # Any snapshot was made without this history.
            (settings.state / SNAPSHOT).unlink(missing_ok=True)
        finally:
            control.close()
    seconds = time.perf_counter() - began
    counts = {"events": [float(len(table))], "subjects": [float(subjects)]}
    figures.add("backfill", {**counts, "per_second": [len(table) / seconds]}, seconds=seconds)
    return figures


def _files(source: Path) -> tuple[Path, list[Path]]:
    subjects = source / "subjects.parquet"
    events = sorted((source / "events").glob("*.parquet"))
    if not subjects.is_file():
        raise UserError(f"{subjects} is missing; make an import with `tillwise-train import`")
    if not events:
        raise UserError(f"{source / 'events'} holds no Parquet files")
    return subjects, events


def _digest(files: list[Path], until: datetime | None) -> str:
    digest = hashlib.sha256(repr(None if until is None else to_us(until)).encode())
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _events(files: list[Path], until: datetime | None) -> pa.Table:
    """The columns that features need of the events before `until`."""
    parts = [read_columns(path, EXPLODED_COLUMNS) for path in files]
    if until is not None:
        parts = [part.filter(pc.less(part["occurred_at"], pa.scalar(until))) for part in parts]
    return pa.concat_tables(parts)


def _exploded(table: pa.Table) -> Any:
    try:
        return explode(table)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise UserError(f"events: {error}") from None


async def _import(
    control: SqlControlStore, secrets: Secrets, file: Path, mark: str, clock: Clock
) -> int:
    consent = Consent(_AGREED, clock.now(), "import")
    return await control.import_subjects(_pseudonyms(file, secrets), consent, (NOTE, mark))


def _pseudonyms(file: Path, secrets: Secrets) -> Iterator[tuple[Pseudonym, str]]:
    table = read_columns(file, ("visitor_id", "subject_id"))
    key, version = KeyedHash(secrets.derive("lookup")), secrets.newest
    ids = zip(table["visitor_id"].to_pylist(), table["subject_id"].to_pylist(), strict=True)
    for visitor_id, subject_id in ids:
        yield Pseudonym(version, pseudonymise(visitor_id, "visitor", key)), str(subject_id)
