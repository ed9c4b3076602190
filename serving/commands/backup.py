"""`tillwise-serve backup`: a copy of everything that a gateway remembers, also while it runs."""

import argparse
from pathlib import Path

from contract.clock import SystemClock
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, save_ledger, secrets_of
from serving.state.backup import write_backup


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "backup", help="copy everything that a gateway remembers, also while it runs"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--with-master-key",
        action="store_true",
        help="put the master key beside it; whoever finds the backup can then read it",
    )
    add_folders(parser, "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Write the backup, whole or not at all."""
    settings = settings_of(args)
    require_control(settings)
    secrets = secrets_of(settings)
    control = open_control(settings, secrets)
    try:
        made = write_backup(
            settings.state,
            control,
            secrets,
            args.output,
            at=SystemClock().now(),
            event_log=_kind(settings.event_log),
            control_store=_kind(settings.control_store),
            save_ledger=lambda path: save_ledger(settings, path),
            with_master_key=args.with_master_key,
        )
    finally:
        control.close()
    size = sum((args.output / name).stat().st_size for name in made.files)
    print(f"{args.output}: {len(made.files)} files, {size / 1e6:.1f} MB")
    print(f"the audit log ends with {made.audit_number}:{made.audit_mac}")
    if not args.with_master_key:
        print(f"it is of no use without the master key {made.master}, which is not in it")
    figures = Figures("backup")
    figures.add("backup", {"files": [float(len(made.files))], "bytes": [float(size)]})
    return figures


def _kind(place: str) -> str:
    """Of a store, without where it is."""
    return place.partition(":")[0]
