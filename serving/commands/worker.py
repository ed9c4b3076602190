"""`tillwise-serve worker`: keeps key figures and the reports of experiments, beside a gateway and
on its state folder. It may be killed and started at any moment."""

import argparse
import os
import sys
from threading import Event as Flag
from threading import Thread

from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, require_interval, settings_of
from serving.commands.child_worker import PORT, ChildWorker
from serving.commands.ending import told_to_end
from serving.control import require_control
from serving.monitoring.http import configure_logging
from serving.settings import Settings
from serving.state.state_folder import EVENTS


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "worker", help="keep key figures and reports of experiments until stopped"
    )
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="read events")
    parser.add_argument(
        "--reports-every", type=float, default=60.0, metavar="SECONDS", help="report experiments"
    )
    parser.add_argument("--as-of", metavar="TIME", help="as if it were this time (UTC)")
    parser.add_argument("--host", default="127.0.0.1", help="of /metrics and /healthz")
    parser.add_argument("--port", type=int, default=PORT, help=f"the same (default {PORT}; 0: any)")
    parser.add_argument(
        "--with-parent", action="store_true", help="end when standard input is closed"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="work in a process beside this one and start it anew whenever it ends; for pods, "
        "which are out of service while one of their containers is",
    )
    add_folders(parser, "state", "releases")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Work until SIGTERM or SIGINT."""
    every_s, reports_s, host, port = args.every, args.reports_every, args.host, args.port
    require_interval("--every", every_s)
    require_interval("--reports-every", reports_s)
    args.host = args.port = None  # they are not the gateway's
    settings = settings_of(args)
    if args.keep:
        return _keep(args, settings, host, port)
    require_control(settings)
    if settings.event_log == "sqlite" and not (settings.state / EVENTS).is_file():
        raise UserError(f"state folder {settings.state} holds no event log")
    from serving.commands.worker_duties import work  # only here: all that counts is in it

    configure_logging(settings.log_level)
    work(settings, args.as_of, every_s, reports_s, host, port, _told_to_end(args))
    return Figures("worker")


def _keep(args: argparse.Namespace, settings: Settings, host: str, port: int) -> Figures:
    """Have another process work, until SIGTERM or SIGINT; whatever ends it, it is started anew."""
    configure_logging(settings.log_level)
    stop = _told_to_end(args)
    told = [f"--every={args.every}", f"--reports-every={args.reports_every}", f"--host={host}"]
    told += [] if args.as_of is None else [f"--as-of={args.as_of}"]
    child = ChildWorker(settings, *told, port=port, log_level=settings.log_level)
    try:
        stop.wait()
    finally:
        child.close()
    return Figures("worker")


def _told_to_end(args: argparse.Namespace) -> Flag:
    """Set by SIGTERM or SIGINT, and with `--with-parent` when the parent ends."""
    stop = told_to_end()
    if args.with_parent:
        Thread(target=_await_end, args=(stop,), name="parent", daemon=True).start()
    return stop


def _await_end(stop: Flag) -> None:
    """Until whoever started this process is gone, however it ended."""
    while os.read(sys.stdin.fileno(), 1_024):
        pass
    stop.set()
