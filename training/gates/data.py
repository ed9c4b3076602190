"""Data health: are the fresh events a whole week of this shop, in its own words?

An empty week, ids that the catalogue does not know, doubled events and a feed that ran at half or
at thrice its usual volume are refused before anything is learned from them.
"""

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from training.data.fresh_events import Part
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

_NEAR_EMPTY = 0.25  # of the usual purchases of a day


def data_health(fresh: Part, before: Part, limits: Limits) -> Verdict:
    """`fresh` is the window, `before` the weeks that lead up to it."""
    checks = [*_volume(fresh, before, limits)]
    lines = fresh.lines.stop - fresh.lines.start
    if lines:
        checks += [*_ids(fresh, limits), *_prices(fresh, before, limits)]
    if fresh.events.stop > fresh.events.start:
        checks.append(_duplicates(fresh, limits))
    return Verdict.of("data_health", checks)


def _volume(fresh: Part, before: Part, limits: Limits) -> list[Check]:
    days, usual_days = purchases_by_day(fresh), purchases_by_day(before)
    bought, usual = int(days.sum()), float(usual_days.mean()) if len(usual_days) else 0.0
    checks = [
        Check(
            "purchases",
            bought,
            limits.min_purchases,
            bought >= limits.min_purchases,
            f"{bought:,} purchases in the window of {len(days)} days, "
            f"at least {limits.min_purchases} needed",
        )
    ]
    if not usual:
        said = "there are no purchases in the weeks before to compare with"
        return [*checks, Check("volume", 0.0, limits.least_volume, False, said)]
    ratio = bought / len(days) / usual
    inside = limits.least_volume <= ratio <= limits.most_volume
    said = (
        f"{ratio:.0%} of the purchases a day of the weeks before, "
        f"{limits.least_volume:.0%} to {limits.most_volume:.0%} allowed"
    )
    checks.append(Check("volume", ratio, limits.least_volume, inside, said))
    empty = float(np.mean(days < _NEAR_EMPTY * usual))
    said = (
        f"{round(empty * len(days))} of {len(days)} days are nearly without purchases, "
        f"at most {limits.empty_days:.0%} allowed"
    )
    checks.append(Check("empty days", empty, limits.empty_days, empty <= limits.empty_days, said))
    return checks


def _ids(fresh: Part, limits: Limits) -> list[Check]:
    known = fresh.of.known[fresh.lines]
    share = float(1 - known.mean())
    said = f"{share:.1%} of the item ids are not in the catalogue"
    if share > 0 and fresh.of.unknown_example:
        said += f", such as {fresh.of.unknown_example[:40]!r}"
    said += f"; at most {limits.unknown_items:.0%} allowed"
    limit = limits.unknown_items
    return [Check("unknown items", share, limit, share <= limit, said)]


def _prices(fresh: Part, before: Part, limits: Limits) -> list[Check]:
    """Prices may be missing from the beginning; what is judged is that they went missing."""
    missing = _unpriced(fresh)
    if _unpriced(before) >= limits.unpriced_lines:
        said = f"{missing:.0%} of the lines carry no price, as before"
        return [Check("unpriced lines", missing, None, True, said)]
    limit = limits.unpriced_lines
    said = f"{missing:.1%} of the lines of purchases carry no price, at most {limit:.0%} allowed"
    return [Check("unpriced lines", missing, limit, missing <= limit, said)]


def _unpriced(part: Part) -> float:
    prices = part.of.price[part.lines][part.purchased]
    return float(np.mean(prices < 0)) if len(prices) else 0.0


def _duplicates(fresh: Part, limits: Limits) -> Check:
    events = fresh.of.event[fresh.events]
    share = 1 - len(np.unique(events)) / len(events)
    limit = limits.duplicate_events
    said = f"{share:.1%} of the events stand there twice, at most {limit:.0%} allowed"
    return Check("duplicate events", share, limit, share <= limit, said)


def purchases_by_day(part: Part) -> npt.NDArray[np.int64]:
    """Purchases on each day of the part."""
    occurred = part.of.occurred_us[part.events][part.of.purchase[part.events]]
    days = max(1, -(-(part.end_us - part.start_us) // DAY_US))
    counts: npt.NDArray[np.int64] = np.bincount(
        (occurred - part.start_us) // DAY_US, minlength=days
    )[:days]
    return counts
