"""`retrain`: a challenger from fresh events, judged against the live release, then released or
refused."""

import argparse
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from contract.clock import SystemClock
from contract.errors import GateRefused, UserError
from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers
    from training.pipeline import Outcome


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `retrain`."""
    parser = subparsers.add_parser(
        "retrain",
        parents=[common_options()],
        help="fit a challenger on fresh events and release it if every gate lets it",
        description="Fits a challenger on everything before the last days of --data, asks it and "
        "the champion about those days, and releases it if no gate refuses. Run again with the "
        "same inputs it goes on where it was. Exits 0 when it passed, 3 when it was refused.",
    )
    _inputs(parser)
    _questions(parser)
    _trial(parser)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.set_defaults(run=run)


def _inputs(parser: argparse.ArgumentParser) -> None:
    """What is learned from, what is to be beaten, and what the release carries besides."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="an import or an export"
    )
    parser.add_argument(
        "--champion", required=True, metavar="RELEASE", help="an id, or `live` for the live one"
    )
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument(
        "--output", type=Path, default=Path("retraining"), metavar="DIR", help="steps and reports"
    )
    parser.add_argument("--recipe", metavar="NAME", help="default: the champion's")
    parser.add_argument("--set", action="append", metavar="key=value", help="of the recipe")
    for name, what in (
        ("segments", "learned segments"),
        ("choices", "learned choices"),
        ("uplift", "an uplift network"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"{what} for the release")


def _questions(parser: argparse.ArgumentParser) -> None:
    """The window, and how it is judged."""
    parser.add_argument(
        "--window-days", type=_days, default=14, metavar="N", help="the fresh window (default 14)"
    )
    parser.add_argument(
        "--validation-days", type=_days, default=14, metavar="N", help="before it, to choose on"
    )
    parser.add_argument(
        "--until",
        type=_date,
        metavar="DATE",
        help="first day after the window, or `today` (default: the day after the last event)",
    )
    parser.add_argument("--cases", type=int, default=3_000, metavar="N", help="questions at most")
    parser.add_argument("--folds", type=int, default=3, metavar="K", help="0: none (default 3)")
    parser.add_argument("--gate", action="append", metavar="key=value", help="change a limit")
    parser.add_argument(
        "--demographics",
        metavar="SET",
        help="`completejourney`, or a file of subject_id and groups: for the gate on fairness",
    )
    parser.add_argument(
        "--latency",
        choices=("gateway", "process"),
        default="gateway",
        help="time decisions through a gateway over either release (default), or by CPU in here",
    )


def _trial(parser: argparse.ArgumentParser) -> None:
    """What becomes of a release that passed."""
    parser.add_argument(
        "--rollout",
        choices=("none", "canary", "promote"),
        default="canary",
        help="what to do with a release that passed (default: put it on trial)",
    )
    parser.add_argument("--percent", type=float, default=5.0, metavar="P", help="of the trial")
    parser.add_argument(
        "--canary-minutes",
        type=float,
        default=0.0,
        metavar="M",
        help="with --rollout promote: how long the trial lasts before",
    )


def run(args: argparse.Namespace) -> Figures:
    """Retrain. Raises UserError on bad input, GateRefused naming every gate that refused."""
    from training.distributed import device_named
    from training.evaluation.released import read_manifest
    from training.gates.limits import limits
    from training.pipeline import retrain
    from training.recipes import recipe
    from training.retraining.plan import Wish, champion_id

    _checked(args)
    allowed = limits(args.gate)
    wish = Wish(
        data=args.data,
        champion=args.champion,
        releases=args.releases,
        models=args.models,
        output=args.output,
        recipe=recipe(args.recipe or "demo", args.set),
        limits=allowed,
        window_days=args.window_days,
        validation_days=args.validation_days,
        until=args.until,
        folds=args.folds,
        cases=args.cases,
        rollout=args.rollout,
        percent=args.percent,
        canary_minutes=args.canary_minutes,
        segments=args.segments,
        choices=args.choices,
        uplift=args.uplift,
        demographics=args.demographics,
        latency=args.latency,
    )
    if args.recipe is None:
        from dataclasses import replace

        manifest = read_manifest(wish.releases, champion_id(wish))
        wish = replace(wish, recipe=recipe(manifest.recipe, args.set))
    outcome = retrain(wish, SystemClock(), device=device_named(args.device))
    figures = _figures(outcome)
    if outcome.refused or outcome.became == "taken back":
        print(figures.table())
        raise GateRefused(_refusal(outcome))
    return figures


def _figures(outcome: "Outcome") -> Figures:
    figures = Figures("retrain")
    found = outcome.steps.results.get("gates")
    if found is not None:
        for side in ("champion", "challenger"):
            rows = {name: [found["rows"][name][side]] for name in found["of"]["overall"]}
            figures.add(side, rows)
    for one in outcome.verdicts:
        figures.add(f"gate/{one.gate}", {"passed": [float(one.passed)]})
    for name, seconds in outcome.steps.seconds.items():
        figures.add(f"step/{name}", {}, seconds=seconds)
    total = sum(outcome.steps.seconds.values())
    figures.add("retrain", {}, seconds=total, peak_mib=peak_mib())
    figures.notes += [f"{one.gate}: {one.reason}" for one in outcome.verdicts]
    if outcome.release_id is not None:
        figures.notes.append(f"release {outcome.release_id}: {outcome.became}")
    figures.notes.append(f"report: {outcome.report}")
    return figures


def _refusal(outcome: "Outcome") -> str:
    if not outcome.refused:
        reason = outcome.steps.results["promote"]["reason"]
        return f"release {outcome.release_id} was taken back: {reason}; report: {outcome.report}"
    told = "; ".join(f"{one.gate}: {one.reason}" for one in outcome.refused)
    return f"refused by {told}; report: {outcome.report}"


def _checked(args: argparse.Namespace) -> None:
    """What argparse can not say in one line."""
    if args.folds == 1 or args.folds < 0:
        raise UserError(f"--folds {args.folds}: 0, or 2 and more")
    if args.cases < 1:
        raise UserError(f"--cases {args.cases}: at least 1")
    if not 0 < args.percent <= 100:
        raise UserError(f"--percent {args.percent:g}: more than 0, at most 100")
    if not 0 <= args.canary_minutes <= 14 * 1_440:
        raise UserError(f"--canary-minutes {args.canary_minutes:g}: from 0 to two weeks")


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 365:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 365")
    return int(text)


def _date(text: str) -> date:
    if text == "today":
        return SystemClock().now().astimezone(UTC).date()
    try:
        return datetime.fromisoformat(text).date()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2017-11-20") from error
