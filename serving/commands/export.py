"""`tillwise-serve export`: the event log as Parquet, for training. Run again it adds what is new;
a gateway may be running on the log meanwhile."""

import argparse
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contract.catalogue import CATALOGUE_COLUMNS
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import CATALOGUE
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.commands.parquet import read_columns
from serving.inference.releases import live_release_id
from serving.settings import Settings
from serving.state.parquet_parts import export, open_parts
from serving.state.state_folder import EVENTS
from serving.stores import open_event_log
from serving.whole_file import replacing


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("export", help="write the event log as Parquet, for training")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to")
    parser.add_argument(
        "--catalogue",
        type=Path,
        metavar="FILE",
        help="the catalogue to put beside the events (default: what DIR has, or else that of the "
        "live release)",
    )
    add_folders(parser, "state", "releases")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Bring the export up to the end of the log."""
    settings = settings_of(args)
    if settings.event_log == "sqlite" and not (settings.state / EVENTS).is_file():
        raise UserError(f"state folder {settings.state} holds no event log")
    catalogue = _catalogue(settings, args.output, args.catalogue)
    began = time.perf_counter()
    event_log = open_event_log(settings)
    try:
        with open_parts(args.output, event_log.log_id) as parts:
            read, added = export(event_log, parts)
            files = len(parts.held.parts)
    finally:
        event_log.close()
    if catalogue is not None:
        with replacing(args.output / CATALOGUE) as file:
            pq.write_table(catalogue, file, compression="zstd")
    seconds = time.perf_counter() - began
    print(f"{args.output}: {added} events more, {files} files in all ({seconds:.1f} s)")
    figures = Figures("export")
    counts = {"events": [float(added)], "read": [float(read)], "files": [float(files)]}
    figures.add("export", {**counts, "per_second": [read / seconds]}, seconds=seconds)
    return figures


def _catalogue(settings: Settings, output: Path, named: Path | None) -> pa.Table | None:
    """The catalogue to be written; None where there is one already and no other was named."""
    if named is None and (output / CATALOGUE).is_file():
        return None
    if named is None:
        named = settings.releases / live_release_id(settings.releases) / CATALOGUE
    return read_columns(named, tuple(CATALOGUE_COLUMNS))
