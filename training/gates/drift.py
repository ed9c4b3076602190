"""Drift: do the figures of the fresh window come from the shop that was learned from?

Every figure of purchases is held against the weeks before (`contract.drift`). A shop changes over a
year; within a few weeks prices do not grow hundredfold and nights do not become days unless
something is broken.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.drift import Drifted, DriftLimits
from contract.drift import drift as compared
from contract.drift_profile import baseline_of
from training.data.fresh_events import FreshEvents, Part
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

Sample = npt.NDArray[np.float64]


def drift(
    before: Mapping[str, Sample],
    fresh: Mapping[str, Sample],
    shoppers: tuple[int, int],
    limits: Limits,
) -> Verdict:
    """Samples by the name of the figure, of the weeks before and of the window, and how many
    shoppers each are of: their purchases are not independent, so chance is judged by them."""
    told = {name: sample for name, sample in before.items() if len(sample)}
    if not told or not any(len(fresh[name]) for name in told):
        said = "there are no purchases to compare with what was learned from"
        return Verdict.of("drift", [Check("purchases", 0.0, 1.0, False, said)])
    baseline = baseline_of(told, shoppers[0])
    allowed = DriftLimits(
        shifted=(limits.drift_psi, limits.drift_ks), min_units=limits.drift_shoppers
    )
    report = compared(baseline, baseline.counted(fresh, shoppers[1]), allowed)
    checks = [_check(one, told, fresh, limits) for one in report.columns]
    return Verdict.of("drift", checks)


def _check(
    one: Drifted, before: Mapping[str, Sample], fresh: Mapping[str, Sample], limits: Limits
) -> Check:
    usual = f"usually {_middle(before[one.name])}, now {_middle(fresh[one.name])}"
    passed = one.verdict != "shifted"
    said = f"{one.name}: PSI {one.psi:.3f}, KS {one.ks:.3f} ({usual})"
    if one.verdict == "too_few":
        said += "; too few shoppers to judge"
    elif not passed:
        said += ": not what was learned from"
    limit = None if one.verdict == "too_few" else limits.drift_psi
    return Check(one.name, one.psi, limit, passed, said)


def _middle(sample: Sample) -> str:
    return f"{float(np.median(sample)):.3g}" if len(sample) else "none"


def samples(
    events: FreshEvents, before: Part, fresh: Part
) -> tuple[dict[str, Sample], dict[str, Sample]]:
    """The figures of the latter half of `before` and of `fresh`: one value for each purchase, or
    for each of its lines. What is said of histories looks back as far from both, or a young shop,
    whose shoppers come to be known, would drift every week."""
    begin_us = max(before.start_us, int(events.occurred_us[0]) if len(events.occurred_us) else 0)
    middle_us = (begin_us + before.end_us) // 2
    again = _again(events, before.end_us - middle_us)
    popularity = _popularity(events, events.window(begin_us, middle_us))
    late = events.window(middle_us, before.end_us)
    return _profile(events, late, again, popularity), _profile(events, fresh, again, popularity)


def _profile(
    events: FreshEvents, part: Part, again: npt.NDArray[np.bool_], popularity: Sample
) -> dict[str, Sample]:
    purchase = np.flatnonzero(events.purchase[part.events]) + part.events.start
    lines = np.arange(part.lines.start, part.lines.stop)[part.purchased]
    of_event = np.searchsorted(purchase, events.line[lines])
    size = np.bincount(of_event, minlength=len(purchase)).astype(np.float64)
    priced = events.price[lines] > 0
    spent = np.where(priced, events.price[lines] * events.quantity[lines], 0)
    value = np.bincount(of_event, spent, len(purchase))
    repeat = np.bincount(of_event, again[lines], len(purchase)) / np.maximum(size, 1)
    return {
        "items in a basket": size,
        "value of a basket": value[value > 0].astype(np.float64),
        "price of an item": events.price[lines][priced].astype(np.float64),
        "quantity of a line": events.quantity[lines].astype(np.float64),
        "hour of the day": (events.occurred_us[purchase] % DAY_US) / (DAY_US / 24),
        "share bought before": repeat,
        "popularity of an item": popularity[events.item[lines]],
    }


def _again(events: FreshEvents, within_us: int) -> npt.NDArray[np.bool_]:
    """Which lines are of an item that the same shopper bought at most `within_us` earlier, [L]."""
    bought = np.flatnonzero(events.purchase[events.line])
    pair = events.subject[events.line[bought]] * (events.item.max(initial=0) + 1)
    pair = pair + events.item[bought]
    order = np.argsort(pair, kind="stable")  # lines are in time order
    when = events.occurred_us[events.line[bought[order]]]
    marked = np.zeros(len(events.line), bool)
    same = (pair[order][1:] == pair[order][:-1]) & (np.diff(when) <= within_us)
    marked[bought[order[1:][same]]] = True
    return marked


def _popularity(events: FreshEvents, early: Part) -> Sample:
    """log1p of how often each item was bought in the part."""
    items = events.item[early.lines][early.purchased]
    counts = np.bincount(items, minlength=int(events.item.max(initial=0)) + 1)
    told: Sample = np.log1p(counts.astype(np.float64))
    return told


def shoppers(events: FreshEvents, part: Part) -> int:
    """How many people bought something in the part."""
    return len(np.unique(events.subject[part.events][events.purchase[part.events]]))
