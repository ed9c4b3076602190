"""`tillwise-serve release push | pull`: releases into the store that a deployment shares, and out
of it onto the disk of a pod. `pull --every` is the sidecar that keeps a pod in step."""

import argparse
import logging
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from contract.rollout import Canary
from contract.rollout_file import live_release_id
from serving.commands.arguments import add_folders, add_json, require_interval, settings_of
from serving.commands.ending import told_to_end
from serving.inference.release_follow import Puller
from serving.inference.release_place import Folders
from serving.inference.release_store import Live, ReleaseStore
from serving.inference.release_transfer import otherwise_run, pull, push, reconfigure
from serving.monitoring.http import configure_logging
from serving.settings import Settings

log = logging.getLogger(__name__)


def add_parsers(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare both commands."""
    pushing = actions.add_parser("push", help="copy one into the release store, or change its live")
    pushing.add_argument("release", metavar="ID", nargs="?", help="default: the live one here")
    then = pushing.add_mutually_exclusive_group()
    then.add_argument("--promote", action="store_true", help="make it live for all that pull")
    then.add_argument("--canary", type=float, metavar="P", help="show it to P %% of the shoppers")
    then.add_argument("--shadow", action="store_true", help="let it decide and show nobody")
    then.add_argument("--stop-canary", action="store_true", help="end the trial, push nothing")
    then.add_argument(
        "--rollback", action="store_true", help="back to the one before the live one, push nothing"
    )
    pushing.add_argument(
        "--configurations",
        action="store_true",
        help="how servers are to run its models, too, where that was changed here since",
    )
    pushing.add_argument("--reason", default="by hand", metavar="TEXT", help="of a rollback")
    pulling = actions.add_parser("pull", help="copy the live one out of the release store")
    pulling.add_argument(
        "release", metavar="ID", nargs="?", help="only this one, without promoting"
    )
    pulling.add_argument("--all", action="store_true", help="every release, without promoting any")
    pulling.add_argument("--every", type=float, metavar="S", help="again every S seconds, for ever")
    pulling.add_argument(
        "--or-keep", action="store_true", help="be content with what is here if the store is away"
    )
    pulling.add_argument(
        "--prune", action="store_true", help="remove what is not live, before it, or on trial"
    )
    pulling.add_argument(
        "--load-triton", metavar="URL", help="have that server load what was pulled, then promote"
    )
    pulling.add_argument(
        "--await-triton", metavar="URL", help="promote once every server of that name has loaded it"
    )
    pulling.add_argument(
        "--mark",
        type=Path,
        metavar="FILE",
        help="there while this machine is in step and the server answers",
    )
    for parser, action in ((pushing, run_push), (pulling, run_pull)):
        described = Settings.model_fields["release_store"].description
        parser.add_argument("--store", metavar="URL", help=described)
        add_folders(parser, "releases", "models")
        add_json(parser)
        parser.set_defaults(run=action)


def run_push(args: argparse.Namespace) -> Figures:
    """Push one release that can be served, and say what it then is. Raises UserError."""
    settings, store = _opened(args)
    figures = Figures("release push")
    at = SystemClock().now()
    if args.rollback or args.stop_canary:
        if args.release is not None or args.configurations:
            raise UserError("--rollback and --stop-canary take no release")
        live = store.roll_back(args.reason, at) if args.rollback else store.try_out(None)
        return _told(figures, store, live)
    release_id = args.release or live_release_id(settings.releases)
    folders = Folders(settings.releases, settings.models)
    there = store.manifest(release_id) is not None
    if there and not (settings.releases / release_id).is_dir():
        copied = False  # another machine pushed it: only its role is to be changed
    else:
        copied = push(store, folders, release_id)
    print(f"release {release_id} {'pushed to' if copied else 'was already in'} {store.url}")
    figures.add(release_id, {"copied": [float(copied)]})
    if args.configurations or (settings.releases / release_id).is_dir():
        _tell_configurations(args, store, folders, release_id)
    if args.promote:
        return _told(figures, store, store.promote(release_id))
    if args.canary is not None or args.shadow:
        try:
            share = 100.0 if args.canary is None else args.canary
            trial = Canary(release_id=release_id, percent=share, shadow=args.shadow, started_at=at)
        except ValidationError as error:
            raise UserError(f"--canary: {error.errors()[0]['msg']}") from None
        return _told(figures, store, store.try_out(trial))
    return figures


def _tell_configurations(
    args: argparse.Namespace, store: ReleaseStore, folders: Folders, release_id: str
) -> None:
    if args.configurations:
        for name in reconfigure(store, folders, release_id):
            print(f"{name} written; a server reads it when it starts")
    elif other := otherwise_run(store, folders, release_id):
        print(f"not pushed: {', '.join(other)}, changed here since; --configurations does it")


def run_pull(args: argparse.Namespace) -> Figures:
    """Pull once, or for ever until SIGTERM or SIGINT. Raises UserError."""
    settings, store = _opened(args)
    folders = Folders(settings.releases, settings.models)
    figures = Figures("release pull")
    for flag in ("load_triton", "await_triton"):
        _require_address(f"--{flag.replace('_', '-')}", getattr(args, flag))
    if args.release or args.all:
        if args.release and args.all:
            raise UserError("--all takes no release")
        if args.every is not None:
            raise UserError("--every follows the live release; it goes with neither ID nor --all")
        for release_id in [args.release] if args.release else store.release_ids():
            copied = pull(store, folders, release_id)
            print(f"release {release_id} {'pulled' if copied else 'was already here'}")
            figures.add(release_id, {"copied": [float(copied)]})
        return figures
    puller = Puller(
        store,
        folders,
        SystemClock(),
        prune=args.prune,
        load_triton=args.load_triton and args.load_triton.rstrip("/"),
        await_triton=args.await_triton,
        mark=args.mark,
    )
    if args.every is None:
        live = puller.once(or_keep=args.or_keep)
        print(f"release {live} is live here")
        figures.add(live, {})
        return figures
    require_interval("--every", args.every)
    configure_logging(settings.log_level)
    puller.follow(args.every, told_to_end())
    return figures


def _require_address(flag: str, url: str | None) -> None:
    """Refuse what no Triton server is asked at. Raises UserError."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme == "http" and parts.hostname and parts.path in ("", "/")
        good = good and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"{flag} {url}: write http://HOST:PORT, of the server's HTTP port (8000)")


def _opened(args: argparse.Namespace) -> tuple[Settings, ReleaseStore]:
    settings = settings_of(args)
    url = args.store or settings.release_store
    if url is None:
        raise UserError("no release store: give --store URL or set TILLWISE_RELEASE_STORE")
    return settings, ReleaseStore(url)


def _told(figures: Figures, store: ReleaseStore, live: Live) -> Figures:
    before = "" if live.previous is None else f" (before it: {live.previous})"
    trial = "" if live.canary is None else f", {live.canary.release_id} on trial"
    print(f"release {live.current} is live in {store.url}{before}{trial}")
    figures.notes.append(f"live: {live.current}")
    return figures
