"""`tillwise-serve migrate`: encrypt the state folder of a version that did not."""

import argparse
import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.settings import Settings
from serving.state.event_log import SqliteEventLog, holds_plain_events, plain_events
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.sqlite_writer import connect
from serving.state.state_folder import EVENTS, SEED, SNAPSHOT, StateFolder

_ASIDE = "events.plain.sqlite"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "migrate", help="encrypt the state folder of an earlier version (gateway stopped)"
    )
    add_folders(parser, "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Encrypt what is not; may be run again after it was interrupted."""
    settings = settings_of(args)
    require_control(settings)
    with StateFolder(settings.state):
        events, states = asyncio.run(_migrate(settings))
    print(f"{events} events and {states} imported histories are encrypted now")
    figures = Figures("migrate")
    figures.add("encrypted", {"events": [float(events)], "states": [float(states)]})
    return figures


async def _migrate(settings: Settings) -> tuple[int, int]:
    # Opening it draws the keys of subjects that have none.
    control = open_control(settings, secrets_of(settings))
    try:
        keys = SubjectKeys(control)
        events = await _encrypt_log(settings.state, keys)
        states = _encrypt_seed(settings.state / SEED, keys)
        _drop_plain_snapshot(settings.state / SNAPSHOT, keys)
    finally:
        control.close()
    return events, states


async def _encrypt_log(folder: Path, keys: SubjectKeys) -> int:
    """Into a new file; the old one is overwritten and removed once the new one holds everything."""
    path, aside = folder / EVENTS, folder / _ASIDE
    if not aside.exists():
        if not path.exists() or not _is_plain(path):
            return 0
        with closing(connect(path)) as connection:  # nothing may be left in its write-ahead log
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        path.rename(aside)
    count = 0
    event_log = SqliteEventLog(path, SealedCodec(keys))
    try:
        with closing(connect(aside)) as connection:
            for some in plain_events(connection):
                await event_log.append(some)
                count += len(some)
    finally:
        event_log.close()
    _overwrite(aside)
    return count


def _is_plain(path: Path) -> bool:
    try:
        with closing(connect(path, read_only=True)) as connection:
            return holds_plain_events(connection)
    except sqlite3.Error as error:
        raise UserError(f"{path}: {error}") from None


def _overwrite(path: Path) -> None:
    """Remove a database so that its text is not left in what the disk calls free; as far as a file
    system writes in place."""
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if file.exists():
            with file.open("r+b") as content:
                content.write(b"\0" * file.stat().st_size)
                content.flush()
            file.unlink()


def _encrypt_seed(path: Path, keys: SubjectKeys) -> int:
    from serving.state.snapshot import (
        SnapshotPlainError,
        SnapshotUnusableError,
        read_plain_snapshot,
        read_snapshot,
        write_snapshot,
    )

    try:
        read_snapshot(path, keys)
    except SnapshotPlainError:
        states = read_plain_snapshot(path).states
        write_snapshot(path, states, 0, keys)
        return len(states)
    except SnapshotUnusableError:
        pass
    return 0


def _drop_plain_snapshot(path: Path, keys: SubjectKeys) -> None:
    """The next start makes it again from the log."""
    from serving.state.snapshot import SnapshotPlainError, SnapshotUnusableError, read_snapshot

    try:
        read_snapshot(path, keys)
    except SnapshotPlainError:
        path.unlink()
    except SnapshotUnusableError:
        pass
