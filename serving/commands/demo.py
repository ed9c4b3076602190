"""`tillwise-serve demo`: what `make demo` ends with."""

import argparse
from pathlib import Path

from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json

STATE = Path("build/demo/state")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("demo", help="replay a real checkout, then serve the demo page")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="an import")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8080)")
    parser.add_argument("--exit", action="store_true", help="end after the printed decision")
    parser.add_argument(
        "--shoppers",
        type=int,
        default=0,
        metavar="N",
        help="let at most N simulated shoppers come, in a running test, for the dashboard",
    )
    add_folders(parser, "releases", "models", "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Seed, serve, replay; then serve on or end."""
    from serving.commands import demo_run  # only here: it is the whole gateway

    return demo_run.run(args)
