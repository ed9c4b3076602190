"""`tillwise-serve release list | status | verify | promote | canary | rollback | push | pull`: the
releases on disk, which one is live, which one is on trial, and what the gateways see of them."""

import argparse
from pathlib import Path

from pydantic import ValidationError

from contract import rollout_file
from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MANIFEST, ReleaseManifest
from contract.rollout import Canary, Rollout
from contract.rollout_file import live_release_id
from serving.commands import release_status, release_transfer
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.commands.check import checked
from serving.settings import Settings

_PERCENT = 10.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("release", help="list, verify, promote, try out, roll back")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    described = {
        "list": ("every release on disk", list_releases),
        "verify": ("verify one, by default the live one", verify),
        "promote": ("verify one, then make it the live one", promote),
        "canary": ("put one on trial for some shoppers, or in the shadow", canary),
        "rollback": ("take the live one away, back to the one before it", rollback),
    }
    parsers = {}
    for name, (text, action) in described.items():
        parser = parsers[name] = actions.add_parser(name, help=text)
        if name in ("verify", "promote", "canary"):
            optional = "?" if name != "promote" else None
            parser.add_argument("release", metavar="ID", nargs=optional)
        add_folders(parser, "releases", "models")
        add_json(parser)
        parser.set_defaults(run=action)
    trial = parsers["canary"]
    trial.add_argument("--percent", type=float, metavar="P", help="of the shoppers (default 10)")
    trial.add_argument(
        "--shadow", action="store_true", help="decide beside the live one and show nobody"
    )
    trial.add_argument("--again", action="store_true", help="although it was rolled back before")
    trial.add_argument("--stop", action="store_true", help="end the trial")
    parsers["rollback"].add_argument("--reason", default="by hand", metavar="TEXT")
    release_status.add_parser(actions)
    release_transfer.add_parsers(actions)


def list_releases(args: argparse.Namespace) -> Figures:
    """Print the releases, the newest first; the live one is marked, and what became of each."""
    releases = settings_of(args).releases
    folders, live = _folders(releases), ""
    rollout = rollout_file.settled(releases)  # before `current` is read
    try:
        live = live_release_id(releases)
    except UserError as error:
        if folders:
            print(f"! {error}")
    figures = Figures("release list")
    manifests = [found for folder in folders if (found := _manifest(folder))]
    for manifest in sorted(manifests, key=lambda one: one.created_at, reverse=True):
        mark = "*" if manifest.release_id == live else " "
        until = f"{manifest.trained_until:%Y-%m-%d %H:%M}"
        synthetic = "  synthetic" if manifest.synthetic else ""
        became = "".join(f"  {one}" for one in _became(rollout, manifest.release_id, live))
        print(
            f"{mark} {manifest.release_id}  {manifest.recipe}  until {until}  "
            f"{manifest.index.count} items{synthetic}{_precision(manifest)}{became}"
        )
        metrics = {name: [value] for name, value in manifest.metrics.items()}
        figures.add(manifest.release_id, metrics)
        if manifest.in_int8:
            figures.notes.append(f"{manifest.release_id}:{_precision(manifest).replace('  ', ' ')}")
        figures.notes += [
            f"{manifest.release_id}: {one}" for one in _became(rollout, manifest.release_id, live)
        ]
    if not manifests:
        raise UserError(f"there is no release in {releases}; make one with `tillwise-train export`")
    figures.notes.append(f"live: {live or 'none'}")
    return figures


def _precision(manifest: ReleaseManifest) -> str:
    return f"  int8: {', '.join(manifest.in_int8)}" if manifest.in_int8 else ""


def _became(rollout: Rollout, release_id: str, live: str) -> list[str]:
    """What is to be said of a release besides what it is made of."""
    said = []
    if release_id == live and rollout.promoted_at is not None:
        said.append(f"live since {rollout.promoted_at:%Y-%m-%d %H:%M}")
    trial = rollout.canary
    if trial is not None and trial.release_id == release_id:
        said.append(f"{'shadow' if trial.shadow else 'canary'} {trial.percent:g} %")
    if release_id in rollout.previous(live)[:1]:
        said.append("previous")
    told = rollout.rollback_of(release_id)
    if told is not None:
        said.append(f"rolled back {told.at:%Y-%m-%d %H:%M} ({told.reason})")
    return said


def verify(args: argparse.Namespace) -> Figures:
    """As `check`."""
    settings = settings_of(args)
    rollout_file.settled(settings.releases)
    release_id = args.release or live_release_id(settings.releases)
    return checked("release verify", settings.releases, settings.models, release_id)


def promote(args: argparse.Namespace) -> Figures:
    """Make a release that verifies the live one; running gateways notice within a second."""
    settings = settings_of(args)
    _load(settings, args.release)
    rollout_file.promote(settings.releases, args.release, SystemClock().now())
    return _done("release promote", args.release, f"release {args.release} is live")


def canary(args: argparse.Namespace) -> Figures:
    """Put a release that verifies on trial, or end the trial."""
    settings = settings_of(args)
    if args.stop:
        if args.release or args.shadow or args.percent is not None:
            raise UserError("--stop takes no release and no share")
        stopped = rollout_file.stop_canary(settings.releases)
        return _done("release canary", stopped, f"release {stopped} is no longer on trial")
    if args.release is None:
        raise UserError("name the release to put on trial, or --stop")
    percent = args.percent if args.percent is not None else 100.0 if args.shadow else _PERCENT
    try:
        trial = Canary(
            release_id=args.release,
            percent=percent,
            shadow=args.shadow,
            started_at=SystemClock().now(),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{first['loc'][0]}: {first['msg']}") from None
    _load(settings, args.release)
    rollout_file.start_canary(settings.releases, trial, again=args.again)
    how = "decides in the shadow" if args.shadow else "is shown"
    said = f"release {args.release} {how} for {percent:g} % of the shoppers"
    return _done("release canary", args.release, said)


def rollback(args: argparse.Namespace) -> Figures:
    """Go back from the live release to the one before it, which must verify. The live one is not
    served again until somebody promotes it."""
    settings = settings_of(args)
    rollout_file.settled(settings.releases)
    live = rollout_file.named(settings.releases)
    if live is None:
        raise UserError("no release is live; choose one with `tillwise-serve release promote`")
    target = rollout_file.roll_back(
        settings.releases,
        live,
        args.reason.strip() or "by hand",
        SystemClock().now(),
        verify=lambda release_id: _load_earlier(settings, release_id),
    )
    if target is None:
        raise UserError(f"release {live} is not the live one any more; see `release list`")
    return _done("release rollback", target, f"release {target} is live again, {live} is not")


def _load(settings: Settings, release_id: str) -> None:
    """Raise UserError unless it can be served. Not `check`: that also judges the pointer, which
    these commands are about to put right."""
    from serving.inference.releases import load_release  # only here: it is the whole gateway

    load_release(settings.releases, settings.models, release_id).models.close()


def _load_earlier(settings: Settings, release_id: str) -> None:
    try:
        _load(settings, release_id)
    except UserError as error:
        raise UserError(
            f"{error}; go back further with `tillwise-serve release promote ID`"
        ) from None


def _done(command: str, release_id: str, said: str) -> Figures:
    print(said)
    figures = Figures(command, notes=[said])
    figures.add(release_id, {})
    return figures


def _folders(releases: Path) -> list[Path]:
    if not releases.is_dir():
        raise UserError(
            f"there is no folder {releases}; make a release with `tillwise-train export`"
        )
    # A name with a dot is something that is not whole yet.
    found = [path for path in releases.iterdir() if path.is_dir() and path.name[0] != "."]
    return sorted(found)


def _manifest(folder: Path) -> ReleaseManifest | None:
    try:
        found = ReleaseManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        print(f"! {folder.name}  its {MANIFEST} can not be read")
        return None
    if found.release_id != folder.name:
        print(f"! {folder.name}  its {MANIFEST} is that of release {found.release_id}")
        return None
    return found
