"""`tillwise-serve retention`: remove now what is older than its period. A running gateway does so
by itself, once a day."""

import argparse
import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from contract.clock import AsOfClock, Clock, SystemClock
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, moment, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.settings import Settings
from serving.state.state_folder import StateFolder

if TYPE_CHECKING:
    from serving.ingest.retention import Removed


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "retention", help="remove what is older than its period (gateway stopped)"
    )
    parser.add_argument("--as-of", metavar="TIME", help="as if it were this time (UTC)")
    add_folders(parser, "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Enforce the periods of the setting `retention` once."""
    settings = settings_of(args)
    clock: Clock = SystemClock() if args.as_of is None else AsOfClock(moment(args.as_of))
    require_control(settings)
    with StateFolder(settings.state):
        removed = asyncio.run(_enforce(settings, clock))
    figures = Figures("retention")
    figures.add("removed", {name: [float(count)] for name, count in asdict(removed).items()})
    print(figures.table())
    return figures


async def _enforce(settings: Settings, clock: Clock) -> "Removed":
    # Only here: they bring the compiled loops of features along.
    from serving.commands.stopped import opened_rights
    from serving.ingest.retention import enforce

    secrets = secrets_of(settings)
    control = open_control(settings, secrets, clock)
    try:
        async with opened_rights(settings, control, secrets, clock) as (stores, rights):
            return await enforce(settings.retention, stores, rights, clock)
    finally:
        control.close()
