"""`tillwise-serve run`: the gateway; with `--worker` all that one machine needs."""

import argparse
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from contract.clock import AsOfClock, Clock, SystemClock
from contract.figures import Figures
from serving.commands.arguments import (
    add_folders,
    add_json,
    add_release,
    moment,
    settings_of,
)
from serving.commands.child_worker import PORT, ChildWorker
from serving.monitoring.http import configure_logging
from serving.settings import mistaken

if TYPE_CHECKING:
    from serving.api.gateway import Gateway

log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("run", help="serve decisions until stopped")
    add_release(parser)
    parser.add_argument("--as-of", metavar="TIME", help="serve as if it were this time (UTC)")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8080)")
    parser.add_argument(
        "--worker",
        action="store_const",
        const=True,
        help=f"start the worker too, its metrics on 127.0.0.1:{PORT} (TILLWISE_WORKER=true)",
    )
    add_folders(parser, "releases", "models", "state")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Serve until SIGTERM or SIGINT."""
    from serving.commands.process import serve  # only here: it is the whole gateway

    settings = settings_of(args)
    clock: Clock = SystemClock() if args.as_of is None else AsOfClock(moment(args.as_of))
    configure_logging(settings.log_level)
    for line in mistaken(os.environ):
        log.warning("%s", line)
    log.info("starting on %s:%d", settings.host, settings.port)
    as_of = () if args.as_of is None else ("--as-of", args.as_of)
    with ExitStack() as held:

        async def start_worker(gateway: "Gateway") -> bool:
            """Once there are stores for it to read."""
            if settings.worker:
                child = ChildWorker(settings, *as_of, port=settings.worker_port)
                held.callback(child.close)
            return False

        serve(settings, clock, release_id=args.release, when_ready=start_worker)
    return Figures("run")
