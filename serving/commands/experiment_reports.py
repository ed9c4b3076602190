"""Reports of every experiment that has run, and the end of those that a guardrail ends."""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime

from contract.clock import Clock, SystemClock
from contract.experiments import Experiment, ExperimentBook
from contract.figures import Figures
from contract.file_lock import alone_if_free
from serving.control import open_control, secrets_of
from serving.decision.experiment_arms import DOCUMENT
from serving.experiments.report import made_report, to_stop
from serving.experiments.report_form import ExperimentReport
from serving.experiments.rollup import FILE, Rollup
from serving.experiments.units import units_of
from serving.monitoring.worker import LOCK
from serving.settings import Settings
from serving.state.audit import COMMAND_LINE
from serving.state.control_store import ControlStore
from serving.state.documents import Document, DocumentConflict
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.stores import open_event_log

log = logging.getLogger(__name__)


def reported(settings: Settings) -> Figures:
    """Read what is new in the event log, unless a worker does, and report."""
    control = open_control(settings, secrets_of(settings), SystemClock())
    rollup = Rollup(settings.state / FILE)
    try:
        return _round(settings, control, rollup)
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
