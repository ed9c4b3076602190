"""What a worker does, round by round, and what it does it with."""

import asyncio
import gc
import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event as Flag
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry

from contract.clock import AsOfClock, Clock, SystemClock, from_us, to_us
from contract.errors import UserError
from contract.file_lock import alone_if_free
from serving.commands.arguments import moment
from serving.commands.experiment_reports import ReportRound
from serving.control import open_control, open_ledger, secrets_of
from serving.experiments.rollup import FILE, Rollup
from serving.experiments.statistics import require_library
from serving.monitoring.alarms import KpiAlarms
from serving.monitoring.anonymous import FILE as ANONYMOUS
from serving.monitoring.anonymous import counted_in
from serving.monitoring.drift import FILE as DRIFT_FILE
from serving.monitoring.drift import DriftWatch
from serving.monitoring.fairness_watch import FairnessWatch
from serving.monitoring.kpi_gauges import KpiGauges
from serving.monitoring.shop_hours import ShopHours
from serving.monitoring.worker import LOCK, Duty, StatusServer, Worker
from serving.settings import Settings
from serving.state.control_store import ControlStore
from serving.state.event_log import EventLog
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.state_folder import LEDGER
from serving.stores import open_event_log

log = logging.getLogger(__name__)

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


def work(
    settings: Settings,
    as_of: str | None,
    every_s: float,
    reports_s: float,
    host: str,
    port: int,
    stop: Flag,
) -> None:
    """Do all of it until `stop`. Raises UserError where another worker does."""
    clock: Clock = SystemClock() if as_of is None else AsOfClock(moment(as_of))
    with ExitStack() as held:
        if not held.enter_context(alone_if_free(settings.state / LOCK)):
            raise UserError(f"another worker keeps the files of state folder {settings.state}")
        control = open_control(settings, secrets_of(settings), clock)
        held.callback(control.close)
        event_log = open_event_log(settings, SealedCodec(SubjectKeys(control)))
        held.callback(event_log.close)
        rollup = Rollup(settings.state / FILE)
        held.callback(rollup.close)
        if as_of is not None:
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


@dataclass(frozen=True)
class _LatestClock:
    """Of data of another time: as late as the latest event, at least."""

    clock: Clock
    rollup: Rollup

    def now(self) -> datetime:
        return max(self.clock.now(), from_us(self.rollup.kpis.latest_us))


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
