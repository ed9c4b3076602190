"""`tillwise-serve worker`: keeps key figures and the reports of experiments, beside a gateway and
on its state folder. It may be killed and started at any moment."""

import argparse
import asyncio
import gc
import logging
import os
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event as Flag
from threading import Thread
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry

from contract.clock import AsOfClock, Clock, SystemClock, from_us, to_us
from contract.errors import UserError
from contract.figures import Figures
from contract.file_lock import alone_if_free
from serving.commands.arguments import add_folders, add_json, moment, require_interval, settings_of
from serving.commands.child_worker import ChildWorker
from serving.commands.ending import told_to_end
from serving.commands.experiment import ReportRound
from serving.control import open_control, open_ledger, require_control, secrets_of
from serving.experiments.rollup import FILE, Rollup
from serving.experiments.statistics import require_library
from serving.monitoring.alarms import KpiAlarms
from serving.monitoring.anonymous import FILE as ANONYMOUS
from serving.monitoring.anonymous import counted_in
from serving.monitoring.drift import FILE as DRIFT_FILE
from serving.monitoring.drift import DriftWatch
from serving.monitoring.fairness_watch import FairnessWatch
from serving.monitoring.http import configure_logging
from serving.monitoring.kpi_gauges import KpiGauges
from serving.monitoring.shop_hours import ShopHours
from serving.monitoring.worker import LOCK, Duty, StatusServer, Worker
from serving.settings import Settings
from serving.state.control_store import ControlStore
from serving.state.event_log import EventLog
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.state_folder import EVENTS, LEDGER
from serving.stores import open_event_log

log = logging.getLogger(__name__)

PORT = 9464
_TIDY_S = 3_600.0
_OVERLAP_US = 600_000_000
_ALARMS_S, _DRIFT_S, _FAIRNESS_S = 120.0, 600.0, 3_600.0
OBJECTS_TO_COLLECT = 50_000  # a batch of events makes so many, and no rings


@dataclass(frozen=True)
class Bench:
    """What the duties work with."""

    settings: Settings
    clock: Clock
    control: ControlStore
    event_log: EventLog
    rollup: Rollup
    alarms: KpiAlarms
    drift: DriftWatch
    fairness: FairnessWatch
    stop: Flag


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
    clock: Clock = SystemClock() if args.as_of is None else AsOfClock(moment(args.as_of))
    configure_logging(settings.log_level)
    stop = _told_to_end(args)
    with ExitStack() as held:
        if not held.enter_context(alone_if_free(settings.state / LOCK)):
            raise UserError(f"another worker keeps the files of state folder {settings.state}")
        control = open_control(settings, secrets_of(settings), clock)
        held.callback(control.close)
        event_log = open_event_log(settings, SealedCodec(SubjectKeys(control)))
        held.callback(event_log.close)
        rollup = Rollup(settings.state / FILE)
        held.callback(rollup.close)
        if args.as_of is not None:
            clock = _LatestClock(clock, rollup)
        registry = CollectorRegistry()
        told = settings.releases, clock, registry
        hours = ShopHours(ZoneInfo(settings.timezone))
        alarms = KpiAlarms(settings.state / FILE, control, *told, hours)
        drift = DriftWatch(settings.state / DRIFT_FILE, control, *told)
        held.callback(drift.close)
        fairness = FairnessWatch(settings.state / FILE, control, settings.releases, clock)
        bench = Bench(settings, clock, control, event_log, rollup, alarms, drift, fairness, stop)
        registry.register(KpiGauges(settings.state / FILE))
        worker = Worker(duties(bench, every_s, reports_s), registry, stop)
        status = StatusServer(worker, host, port)
        held.callback(status.close)
        log.info("working on %s, metrics on %s:%d", settings.state, host, status.port)
        gc.set_threshold(OBJECTS_TO_COLLECT)
        worker.run()
    return Figures("worker")


@dataclass(frozen=True)
class _LatestClock:
    """Of data of another time: as late as the latest event, at least."""

    clock: Clock
    rollup: Rollup

    def now(self) -> datetime:
        return max(self.clock.now(), from_us(self.rollup.kpis.latest_us))


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


def duties(bench: Bench, every_s: float, reports_s: float) -> list[Duty]:
    """All that the worker does, in the order in which it is done where several are due."""
    return [
        Duty("rollup", every_s, lambda: _follow(bench)),
        Duty("anonymous sums", every_s, lambda: _take_anonymous(bench)),
        Duty("offer costs", every_s, lambda: _take_redeemed(bench)),
        Duty("tidy", _TIDY_S, lambda: _tidy(bench)),
        Duty("reports", reports_s, _Reports(bench).make),
        Duty("alarms", _ALARMS_S, bench.alarms.look),
        Duty("drift", _DRIFT_S, lambda: _drift(bench)),
        Duty("fairness", _FAIRNESS_S, bench.fairness.look),
    ]


def _drift(bench: Bench) -> None:
    bench.drift.follow(bench.event_log, bench.stop.is_set)
    bench.drift.look()


def _follow(bench: Bench) -> None:
    bench.rollup.forget(bench.control)
    if bench.settings.control_store != "sqlite":  # otherwise the gateway beside it looks itself
        bench.rollup.tell(bench.control, bench.clock.now())
    bench.rollup.follow(bench.event_log, bench.control, bench.stop.is_set)


def _tidy(bench: Bench) -> None:
    """Facts of behaviour are kept no longer than the behaviour itself."""
    kept = timedelta(days=bench.settings.retention.behaviour)
    bench.rollup.tidy(to_us(bench.clock.now() - kept))


def _take_anonymous(bench: Bench) -> None:
    bench.rollup.add_anonymous(counted_in(bench.settings.state / ANONYMOUS))


def _take_redeemed(bench: Bench) -> None:
    """What was redeemed or rolled back since, and a little before: several gateways write there."""
    settings = bench.settings
    if settings.control_store == "sqlite" and not (settings.state / LEDGER).is_file():
        return
    with closing(open_ledger(settings)) as ledger:
        since_us = bench.rollup.kpis.redeemed_until() - _OVERLAP_US
        bench.rollup.add_redeemed(asyncio.run(ledger.settled_since(since_us)))


class _Reports:
    """Of experiments, where their library is installed; it takes seconds to import, so that only
    the first report waits for it."""

    def __init__(self, bench: Bench) -> None:
        self._round = ReportRound(bench.control, bench.rollup, bench.clock)
        self._said = False

    def make(self) -> None:
        try:
            require_library()
        except UserError as missing:
            if not self._said:
                log.warning("no reports of experiments: %s", missing)
                self._said = True
            return
        self._round.run()


def _await_end(stop: Flag) -> None:
    """Until whoever started this process is gone, however it ended."""
    while os.read(sys.stdin.fileno(), 1_024):
        pass
    stop.set()
