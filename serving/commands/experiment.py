"""`tillwise-serve experiment size | report`: how many people a test needs, and what it has shown.
`report` reads once what is new in the event log and keeps the reports which
`GET /v1/experiments/{key}/report` answers with. Who does so again and again is the worker
(`tillwise-serve worker --reports-every`), and where one runs the log is left to it."""

import argparse

from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import require_control
from serving.experiments.size import days, sample_size
from serving.experiments.statistics import require_library
from serving.state.state_folder import EVENTS


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("experiment", help="size a test, or report what it has shown")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    size = actions.add_parser("size", help="how many people, and how many days")
    size.add_argument("--baseline", type=float, required=True, help="the metric's mean per person")
    size.add_argument("--lift", type=float, required=True, help="relative, as .05")
    size.add_argument(
        "--deviation",
        type=float,
        help="standard deviation per person (default: that of yes and no, as in conversion)",
    )
    size.add_argument("--per-day", type=float, required=True, help="new people at the till a day")
    size.add_argument("--power", type=float, default=0.8)
    size.add_argument("--alpha", type=float, default=0.05)
    size.add_argument("--weights", type=float, nargs="+", default=[1.0, 1.0], metavar="WEIGHT")
    size.add_argument("--share", type=float, default=1.0, help="of them that take part")
    size.set_defaults(run=_size)
    report = actions.add_parser(
        "report",
        help="read what is new and report every experiment, once; `worker` does so all the time",
    )
    report.set_defaults(run=_report)
    add_folders(report, "state")
    for parser in (size, report):
        add_json(parser)


def _size(args: argparse.Namespace) -> Figures:
    total = sum(args.weights)
    if args.deviation is None and not 0 < args.baseline < 1:
        raise UserError("--baseline of a share lies between 0 and 1; else say the --deviation")
    if args.deviation is None and args.baseline * (1 + args.lift) >= 1:
        raise UserError("--lift takes the share of --baseline to 1 or more")
    if not 0 < args.share <= 1:
        raise UserError("--share lies above 0 and up to 1")
    own = args.baseline * (1 - args.baseline)
    variance = own if args.deviation is None else args.deviation**2
    found = sample_size(
        args.baseline,
        variance,
        args.lift,
        power=args.power,
        alpha=args.alpha,
        fractions=[one / total for one in args.weights] if total > 0 else args.weights,
    )
    figures = Figures("experiment size")
    for name, units in (("one look at the end", found.units), ("any look", found.always_units)):
        needed = days(units, args.per_day * args.share)
        figures.add(name, {"people": [float(units)], "days": [float(needed)]})
    print(figures.table())
    print(f"planned_units of the experiment: {found.always_units}")
    return figures


def _report(args: argparse.Namespace) -> Figures:
    require_library()
    settings = settings_of(args)
    require_control(settings)
    if settings.event_log == "sqlite" and not (settings.state / EVENTS).is_file():
        raise UserError(f"state folder {settings.state} holds no event log")
    from serving.commands.experiment_reports import reported  # only here: it reads the log

    figures = reported(settings)
    print(figures.table())
    return figures
