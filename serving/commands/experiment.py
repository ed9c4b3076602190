"""`tillwise-serve experiment size | report`: how many people a test needs, and what it has shown.
`report` reads once what is new in the event log and keeps the reports which
`GET /v1/experiments/{key}/report` answers with. Who does so again and again is the worker
(`tillwise-serve worker --reports-every`), and where one runs the log is left to it."""

import argparse
import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime

from contract.clock import Clock, SystemClock
from contract.errors import UserError
from contract.experiments import Experiment, ExperimentBook
from contract.figures import Figures
from contract.file_lock import alone_if_free
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.decision.experiment_arms import DOCUMENT
from serving.experiments.report import made_report, to_stop
from serving.experiments.report_form import ExperimentReport
from serving.experiments.rollup import FILE, Rollup
from serving.experiments.size import days, sample_size
from serving.experiments.statistics import require_library
from serving.experiments.units import units_of
from serving.monitoring.worker import LOCK
from serving.settings import Settings
from serving.state.audit import COMMAND_LINE
from serving.state.control_store import ControlStore
from serving.state.documents import Document, DocumentConflict
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.state_folder import EVENTS
from serving.stores import open_event_log

log = logging.getLogger(__name__)


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
    control = open_control(settings, secrets_of(settings), SystemClock())
    rollup = Rollup(settings.state / FILE)
    try:
        figures = _round(settings, control, rollup)
        print(figures.table())
        return figures
    finally:
        rollup.close()
        control.close()


def _round(settings: Settings, control: ControlStore, rollup: Rollup) -> Figures:
    """One reading of what is new, with a report of every experiment that has run."""
    began = time.perf_counter()
    reports = ReportRound(control, rollup, SystemClock())
    with alone_if_free(settings.state / LOCK) as free:
        if not free:
            figures = reports.run()
            figures.notes.append("a worker reads the event log; this is of what it has read")
            return figures
        event_log = open_event_log(settings, SealedCodec(SubjectKeys(control)))
        try:
            events = rollup.follow(event_log, control)
        finally:
            event_log.close()
        forgotten = rollup.forget(control)
        figures = reports.run()
    seconds = time.perf_counter() - began
    figures.notes.append(f"{events} events more, {forgotten} subjects let go, {seconds:.1f} s")
    return figures


@dataclass(frozen=True)
class ReportRound:
    """Reports every experiment that has run, from what was read so far."""

    control: ControlStore
    rollup: Rollup
    clock: Clock

    def run(self) -> Figures:
        """Make and keep the reports, and end what a guardrail ends. One that can not be reported
        keeps none of the others from it; its error is raised at the end."""
        figures, now, failed = Figures("experiment report"), self.clock.now(), list[Exception]()
        for experiment in _book(self.control.document(DOCUMENT)).experiments:
            if experiment.status == "draft":
                continue
            try:
                self._report(experiment, now, figures)
            except Exception as error:
                log.error("experiment %s was not reported", experiment.key)
                failed.append(error)
        if failed:
            raise failed[0]
        return figures

    def _report(self, experiment: Experiment, now: datetime, figures: Figures) -> None:
        made = made_report(experiment, units_of(self.rollup.file, experiment.key), now)
        self.rollup.keep_report(experiment.key, made.model_dump_json())
        _add(figures, made)
        guardrail = to_stop(made)
        if guardrail is None or experiment.status != "running":
            return
        if _stop(self.control, experiment.key, f"guardrail {guardrail.metric}", now):
            figures.notes.append(f"{experiment.key} was stopped by its guardrail")


def _add(figures: Figures, report: ExperimentReport) -> None:
    figures.notes.extend(f"{report.experiment.key}: {one}" for one in report.summary)
    for variant in report.variants:
        lifts = {f"{one.metric} lift": [one.lift] for one in variant.metrics}
        name = f"{report.experiment.key} {variant.variant}"
        figures.add(name, {"people": [float(variant.units)], **lifts})


def _stop(control: ControlStore, key: str, why: str, now: datetime) -> bool:
    """End it as it is written by now; whether that was done. It is not where somebody writes
    experiments at this very moment: the next round comes."""
    document = control.document(DOCUMENT)
    if document is None:
        return False
    book = _book(document)
    experiment = book.get(key)
    if experiment is None or experiment.status != "running":
        return False
    ended = experiment.model_copy(update={"status": "stopped"})
    body = book.saved(ended, now).model_dump_json(exclude_none=True)
    try:
        asyncio.run(control.put_document(DOCUMENT, body, document.version, COMMAND_LINE, why))
    except DocumentConflict:
        return False
    return True


def _book(document: Document | None) -> ExperimentBook:
    if document is None:
        return ExperimentBook()
    return ExperimentBook.model_validate_json(document.body)
