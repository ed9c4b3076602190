"""`python -m benchmarks.anomalies`: whether the watch over key figures finds what goes wrong, soon,
and is quiet otherwise.

Each seed is a shop of its own over eight weeks, with a season, a trend, noise and promotions that
nobody announces; its parameters are drawn from a range that was not tuned on (`--tuning` draws from
the one that was). The watch has four weeks before anything counts. In the other four, faults are
planted one after the other at random times of day or night; the same kind of shop without any says
how often it cries wolf. What was planted is told to nobody but this file.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.command import Missed, execute
from benchmarks.kpi_worlds import A_DAY, Fault, Floats, Kind, World, simulate
from contract.errors import UserError
from contract.figures import Figures
from serving.monitoring.anomaly_signals import WATCHED
from serving.monitoring.anomaly_watch import ALL, Watch, Where, by_hour
from serving.monitoring.kpi_metrics import PLACE

PROGRAM = "benchmarks.anomalies"
DAYS, LEARNED = 56, 28
FOUND_SHARE, ALARMS_A_WEEK = 0.95, 1.0
FINE: Final = 3  # looks in a quarter of an hour, as many as the sums have parts of one
WITHIN = 8 * FINE  # parts: two hours
_MINUTES: Final = 5.0
_LASTS: Final = 4.0  # hours that a fault is there, but for drifts
_SERIES: Final = 87  # that all slices of such a shop have
_EVERY: Final = 1.0  # days from one to the next
# Orders that the two hours must bring for the promise to hold, and visits a day of the table.
PROMISED: Final = 8_000
_TRAFFIC: Final = (10_000.0, 30_000.0, 100_000.0, 300_000.0, 1_000_000.0, 3_000_000.0)
_BINS: Final = (0, 300, 1_000, 2_000, 4_000, 8_000, 10**9)
_PLANTED: Final[tuple[tuple[Kind, float, Where | None], ...]] = (
    ("drop", 0.05, None),
    ("drop", 0.10, None),
    ("drop", 0.20, None),
    ("slice drop", 0.20, ("device", "mobile")),
    ("value drop", 0.10, None),
    ("dead slice", 1.0, ("country", "CH")),
    ("latency", 1.6, None),
)
_OF: Final[Mapping[str, frozenset[str]]] = {
    "drop": frozenset({"conversion", "revenue_per_decision", "abandonment", "take_rate"}),
    "slice drop": frozenset({"conversion", "revenue_per_decision", "abandonment", "take_rate"}),
    "value drop": frozenset({"order_value", "revenue_per_decision"}),
    "slow drift": frozenset({"conversion", "revenue_per_decision", "abandonment", "take_rate"}),
    "dead slice": frozenset({"decisions"}),
    "latency": frozenset({"latency_ms"}),
}


@dataclass(frozen=True)
class Seen:
    """Alarms of one shop from day LEARNED on: `fast` [S, T], at the end of every five minutes, and,
    by day, `slow` [S, D], of the series `keys` (metric, slice)."""

    keys: Sequence[tuple[str, Where]]
    fast: npt.NDArray[np.bool_]
    slow: npt.NDArray[np.bool_]


def watched(slices: Mapping[Where, Floats], series: int = 0) -> Seen:
    """Day by day as the worker does it: fitted on what was before, then looked at every five
    minutes. `slices`: counters of each by five minutes. `series`: for how many the threshold is,
    where `slices` are some of them only."""
    rows: dict[tuple[str, Where], tuple[Floats, Floats]] = {}
    hours = {name: by_hour(_quarters(own, 0)) for name, own in slices.items()}
    for day in range(LEARNED, DAYS):
        watch = Watch.fitted({name: own[: day * 24] for name, own in hours.items()})
        if series:
            watch = Watch(watch.series, series)
        begin = (day - 1) * A_DAY
        of_days = slice(begin * FINE, (day + 1) * A_DAY * FINE)
        own_days = {name: own[of_days] for name, own in slices.items()}
        for later in range(FINE):
            parts = {name: _quarters(own, later) for name, own in own_days.items()}
            places = begin + later / FINE + np.arange(len(parts[ALL]), dtype=np.float64)
            for one in watch.look(parts, places):
                key = (one.series.watched.metric, one.series.where)
                empty = (np.zeros((DAYS - LEARNED) * A_DAY * FINE), np.zeros(DAYS - LEARNED))
                fast, slow = rows.setdefault(key, empty)
                at = day - LEARNED
                known = np.arange(A_DAY, len(one.scan.z)) * FINE + later + FINE - 1
                known += (at - 1) * A_DAY * FINE
                fast[known] = one.scan.z[A_DAY:] / watch.critical(one.series)
                slow[at] = one.slow[0] / watch.critical_slow
    keys = list(rows)
    return Seen(
        keys,
        np.stack([rows[key][0] for key in keys]) >= 1,
        np.stack([rows[key][1] for key in keys]) >= 1,
    )


def _quarters(parts: Floats, later: int) -> Floats:
    """Whole quarters of an hour, of which the first begins so many parts later, [T, C]."""
    rest = parts[later:]
    whole = rest[: len(rest) // FINE * FINE]
    found: Floats = whole.reshape(-1, FINE, parts.shape[1]).sum(axis=1)
    return found


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Judge alarms.")
    parser.add_argument("--shops", type=int, default=12, help="seeds for each amount of traffic")
    parser.add_argument("--seed", type=int, default=101, help="the first one")
    parser.add_argument("--tuning", action="store_true", help="the range that was tuned on")
    parser.add_argument("--traffic", type=float, nargs="+", default=list(_TRAFFIC))
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    return parser


@dataclass(frozen=True)
class Told:
    """A planted fault and what became of it: minutes until it was found (None: not within the time
    it was there), and the orders that were expected in its first two hours."""

    fault: Fault
    minutes: float | None
    orders: float

    @property
    def in_time(self) -> bool:
        """Within two hours."""
        return self.minutes is not None and self.minutes <= _MINUTES * WITHIN


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and False: there is nothing to be void. Raises UserError, and Missed where a
    promise is not kept."""
    if args.shops < 1 or any(not 100 <= one <= 1e8 for one in args.traffic):
        raise UserError("at least one shop, with 100 to 100,000,000 visits a day")
    figures, everything = Figures("anomalies"), list[Told]()
    missed = list[str]()
    for visits in args.traffic:
        began = time.process_time()
        told, alarms, drifts = list[Told](), list[float](), list[float]()
        for seed in range(args.seed, args.seed + args.shops):
            rng = np.random.default_rng([seed, int(visits)])
            world = World.drawn(rng, visits, 0.6 if args.tuning else 1.0)
            told += _faulty(world, rng)
            alarms.append(_quiet(world, rng))
            drifts.append(_drifting(world, rng))
        everything += told
        row = _row(told, alarms, drifts)
        figures.add(f"{visits:,.0f} visits a day", row, seconds=time.process_time() - began)
        if row["false alarms a week"][0] > ALARMS_A_WEEK:
            missed.append(f"{row['false alarms a week'][0]:.2f} false alarms a week")
    promised = _by_orders(figures, everything)
    if promised is not None and promised < FOUND_SHARE:
        missed.append(f"{promised:.1%} of drops found in time where {PROMISED:,} orders would be")
    figures.notes += [
        f"{args.shops} shops for each amount of traffic, drawn from "
        f"{'the range' if args.tuning else 'a wider range than'} that was tuned on; four weeks of "
        "faults in each: drops of 5, 10 and 20 % of conversion, "
        "of 20 % on mobile alone, of 10 % of an order's value, a country gone, decisions 1.6 times "
        "as slow; at any hour, night too",
        "found: an alarm of a figure that it touches, from its beginning until two hours later",
        "false alarms: matters (sales, speed, consent, traffic) that any series began to be in "
        "alarm about in four weeks without faults, a week",
        "drift: days until a conversion that loses 1 % a day is found; 15 where it is not",
    ]
    if missed:
        raise Missed(figures, "; ".join(missed))
    return figures, False


def _faulty(world: World, rng: np.random.Generator) -> list[Told]:
    """One fault after the other."""
    faults, at = list[Fault](), (LEARNED + 0.5) * A_DAY
    kinds = list(_PLANTED)
    while at + A_DAY < DAYS * A_DAY:
        if len(faults) % len(kinds) == 0:
            rng.shuffle(kinds)
        kind, size, where = kinds[len(faults) % len(kinds)]
        begin = at + rng.uniform(0, A_DAY * _EVERY - 4 * _LASTS)
        faults.append(Fault(kind, begin, begin + 4 * _LASTS, size, where))
        at += A_DAY * _EVERY
    slices = simulate(world, DAYS, rng, faults, FINE)
    some = {where: slices[where] for where in (ALL, *(one[2] for one in _PLANTED)) if where}
    seen = watched(some, _SERIES)
    orders = slices[ALL][:, PLACE["orders"]]
    return [_told(fault, seen, orders) for fault in faults]


def _told(fault: Fault, seen: Seen, orders: Floats) -> Told:
    touched = [
        place
        for place, (metric, where) in enumerate(seen.keys)
        if metric in _OF[fault.kind] and (fault.where is None or where in (ALL, fault.where))
    ]
    begin = int(fault.at * FINE)
    learned = LEARNED * A_DAY * FINE
    window = seen.fast[touched, begin - learned : int(fault.until * FINE) - learned]
    hits = np.nonzero(window.any(axis=0))[0]
    late = begin + 1 - fault.at * FINE
    minutes = None if not len(hits) else _MINUTES * (late + float(hits[0]))
    # What two hours at that time bring, by the same hours of the weeks before.
    weeks = [orders[begin - back * 7 * A_DAY * FINE :][:WITHIN].sum() for back in (1, 2, 3, 4)]
    return Told(fault, minutes, float(np.median(weeks)))


def _quiet(world: World, rng: np.random.Generator) -> float:
    """Alarms a week where there is nothing."""
    seen = watched(simulate(world, DAYS, rng, fine=FINE))
    families = sorted({one.family for one in WATCHED.values()})
    together = np.zeros((len(families), seen.fast.shape[1]), bool)
    for place, (metric, _) in enumerate(seen.keys):
        alarm = seen.fast[place] | np.repeat(seen.slow[place], A_DAY * FINE)
        together[families.index(WATCHED[metric].family)] |= alarm
    began = _beginnings(together, 4 * 6 * FINE)
    return began / ((DAYS - LEARNED) / 7)


def _beginnings(alarm: npt.NDArray[np.bool_], apart: int) -> int:
    """Alarms that begin, of all rows [N, T]; one that returns within `apart` is the same."""
    count = 0
    for row in range(len(alarm)):
        at = np.nonzero(alarm[row])[0]
        count += int(len(at) > 0) + int((np.diff(at) > apart).sum())
    return count


def _drifting(world: World, rng: np.random.Generator) -> float:
    """Days until a slow drift is found."""
    begin = (LEARNED + 13) * A_DAY
    fault = Fault("slow drift", begin, DAYS * A_DAY, 0.01)
    seen = watched({ALL: simulate(world, DAYS, rng, [fault], FINE)[ALL]}, _SERIES)
    touched = [place for place, key in enumerate(seen.keys) if key[0] in _OF[fault.kind]]
    fast = seen.fast[touched].reshape(len(touched), -1, A_DAY * FINE)
    alarm = np.logical_or(fast.any(axis=2), seen.slow[touched]).any(axis=0)
    hits = np.flatnonzero(np.asarray(alarm)[14:])
    return 1.0 + float(hits[0]) if len(hits) else 15.0


def _row(
    told: Sequence[Told], alarms: Sequence[float], drifts: Sequence[float]
) -> dict[str, list[float]]:
    drops = [one for one in told if one.fault.kind in ("drop", "slice drop", "value drop")]
    large = [one for one in drops if one.fault.size >= 0.1]
    found = {"found >= 10 % in 2 h": [_share(large)]}
    for size in (0.05, 0.10, 0.20):
        same = [one for one in drops if one.fault.kind == "drop" and one.fault.size == size]
        found[f"conversion -{size:.0%}"] = [_share(same)]
    for kind in ("slice drop", "value drop", "dead slice", "latency"):
        found[kind] = [_share([one for one in told if one.fault.kind == kind])]
    minutes = [one.minutes for one in large if one.minutes is not None and one.in_time]
    found["minutes"] = [float(np.median(minutes)) if minutes else float("nan")]
    found["false alarms a week"] = [float(np.mean(alarms))]
    found["drift days"] = [float(np.median(drifts))]
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _share(told: Sequence[Told]) -> float:
    return sum(one.in_time for one in told) / len(told) if told else float("nan")


def _by_orders(figures: Figures, told: Sequence[Told]) -> float | None:
    """How much traffic it takes: by the orders that the two hours would have brought. The share of
    drops of a tenth and more that were found where there are PROMISED of them."""
    promised = None
    for low, high in pairwise(_BINS):
        held = [one for one in told if low <= one.orders < high]
        large = [one for one in held if "drop" in one.fault.kind and one.fault.size >= 0.1]
        row = {"found >= 10 % in 2 h": [_share(large)]} if large else {}
        if low >= PROMISED and large:
            promised = _share(large)
        for size in (0.05, 0.10, 0.20):
            same = [one for one in held if one.fault.kind == "drop" and one.fault.size == size]
            if len(same) >= 3:
                row[f"conversion -{size:.0%}"] = [_share(same)]
        named = f"{low:,} to {high:,}" if high < 10**9 else f"{low:,} and more"
        if row:
            figures.add(f"{named} orders in 2 h", row)
    return promised


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
