"""From the answers of both sides to the verdicts of the gates, and to the figures of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.manifest import ReleaseManifest
from contract.pair_features import PAIR_FEATURES
from training.data.fresh_events import FreshEvents, Part
from training.evaluation import metrics
from training.gates import fairness, leakage, operation, quality
from training.gates.calibration import EDGES, calibration
from training.gates.data import purchases_by_day
from training.gates.operation import Timed
from training.gates.paired import Paired, paired
from training.gates.verdict import Verdict
from training.retraining.answers import UNKNOWN_CASES, Answers, ndcg
from training.retraining.groups import groups_of, named, novelty, served
from training.retraining.plan import Wish
from training.retraining.questions import Questions
from training.retraining.steps import Result

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Sides = tuple[Answers, Answers]  # champion, challenger
_UNKNOWN = "shoppers nobody knows (cart only)"


def judged(
    questions: Questions,
    sides: Sides,
    manifests: tuple[ReleaseManifest, ReleaseManifest],
    timed: Timed,
    wish: Wish,
    exported: Mapping[str, Any],
) -> Result:
    """All verdicts on answers, in the order of the report, with what they were made of."""
    limits, shopper = wish.limits, questions.shopper
    every = [ndcg(one.ranked, questions.targets) for one in sides]
    by_slice = [_slices(one, questions) for one in sides]
    cold = [_cold(one, questions) for one in sides]
    units = {**_units(questions), **_cold_units(questions)}
    slices, slice_rows = quality.slices(by_slice[0], by_slice[1], units, limits)
    cold_start, cold_rows = quality.cold_start(cold[0], cold[1], units, limits)
    verdicts = [
        quality.quality(every[0], every[1], shopper, limits),
        slices,
        cold_start,
        calibration(sides[0].reliability, sides[1].reliability, limits),
        _fair(questions, sides, every, wish),
        _leakage(questions, sides, every, manifests, wish),
        operation.parity(exported["parity"], exported["recall"], limits),
        operation.latency(timed, limits),
    ]
    rows = {**_overall(questions, sides), **slice_rows, **cold_rows}
    return {
        "verdicts": [one.as_json() for one in verdicts],
        "rows": {name: asdict(row) for name, row in rows.items()},
        "of": {
            "overall": list(_overall(questions, sides)),
            "slices": list(slice_rows),
            "cold": list(cold_rows),
        },
        "reliability": [_bins(one) for one in sides],
        "spent_ms": [timed.champion_ms.tolist(), timed.challenger_ms.tolist()],
        "live_ndcg": [float(one.live_ndcg.mean()) for one in sides],
        "frozen_ndcg": [float(one.frozen_ndcg.mean()) for one in sides],
        "top_scores": [np.quantile(one.top_scores, [0.1, 0.5, 0.9]).tolist() for one in sides],
        "items": [len(one) for one in _known_items(manifests)],
        "questions": len(questions.cases),
        "shoppers": len(np.unique(shopper)),
    }


def _known_items(manifests: Sequence[ReleaseManifest]) -> list[range]:
    return [range(one.index.count) for one in manifests]


def _overall(questions: Questions, sides: Sides) -> dict[str, Paired]:
    tables = [metrics.per_case(one.ranked, questions.targets) for one in sides]
    return {name: paired(tables[0][name], tables[1][name], questions.shopper) for name in tables[0]}


def _slices(one: Answers, questions: Questions) -> dict[str, Floats]:
    """NDCG of slices of questions, recall of slices of what is to be found."""
    values = ndcg(one.ranked, questions.targets)
    found = {name: values[marks] for name, marks in questions.asked_of.items()}
    for name, marked in questions.about.items():
        found[f"{name} (recall)"] = metrics.recall_of(one.ranked, questions.targets, marked)
    return {name: each for name, each in found.items() if len(each)}


def _units(questions: Questions) -> dict[str, Numbers]:
    units = {name: questions.shopper[marks] for name, marks in questions.asked_of.items()}
    for name, marked in questions.about.items():
        units[f"{name} (recall)"] = questions.shopper[_any(marked)]
    return units


def _cold(one: Answers, questions: Questions) -> dict[str, Floats]:
    """New items, new shoppers, and shoppers of whom nothing is known at all."""
    values, few = ndcg(one.ranked, questions.targets), len(one.unknown)
    return {
        "new items (recall)": metrics.recall_of(
            one.ranked, questions.targets, questions.cold_items
        ),
        "new shoppers": values[questions.cold_shoppers],
        _UNKNOWN: ndcg(one.unknown, questions.targets[:few]),
    }


def _cold_units(questions: Questions) -> dict[str, Numbers]:
    return {
        "new items (recall)": questions.shopper[_any(questions.cold_items)],
        "new shoppers": questions.shopper[questions.cold_shoppers],
        _UNKNOWN: questions.shopper[:UNKNOWN_CASES],
    }


def _any(marked: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return np.array([marks.any() for marks in marked], bool)


def _fair(questions: Questions, sides: Sides, every: Sequence[Floats], wish: Wish) -> Verdict:
    contexts = [questions.source.baskets.contexts[case.number] for case in questions.cases]
    regions = [None if one is None else one.region for one in contexts]
    groups = groups_of(wish.demographics, [case.subject for case in questions.cases], regions)
    reports = [
        served(groups, questions.shopper, values, novelty(one.ranked, questions.owned), wish.limits)
        for one, values in zip(sides, every, strict=True)
    ]
    return fairness.served(reports[1], reports[0], wish.limits, named(wish.demographics))


def _leakage(
    questions: Questions,
    sides: Sides,
    every: Sequence[Floats],
    manifests: tuple[ReleaseManifest, ReleaseManifest],
    wish: Wish,
) -> Verdict:
    """With histories up to the moment of each decision, as they are served: what leaks leaks
    there."""
    auc = dict(zip(PAIR_FEATURES, sides[1].auc.tolist(), strict=True))
    start = questions.window.train_until
    return leakage.leakage(
        [
            leakage.frozen_before("challenger", manifests[1].trained_until, start),
            leakage.single_features(auc, wish.limits),
            leakage.jump(float(every[0].mean()), float(every[1].mean()), wish.limits),
            leakage.live_jump(
                float(sides[1].frozen_ndcg.mean()), float(sides[1].live_ndcg.mean()), wish.limits
            ),
        ]
    )


def _bins(one: Answers) -> dict[str, list[float]]:
    return {
        "edges": EDGES.tolist(),
        "promised": one.promised.tolist(),
        "came": one.came.tolist(),
        "held": one.held.tolist(),
    }


def facts(events: FreshEvents, fresh: Part, before: Part) -> Result:
    """What the report and the data card say of the events."""
    return {
        "days": purchases_by_day(fresh).tolist(),
        "days_before": purchases_by_day(before).tolist(),
        "events": fresh.events.stop - fresh.events.start,
        "events_in_all": len(events.event),
        "purchases_in_all": int(events.purchase.sum()),
        "shoppers_in_all": int(events.subject.max(initial=-1)) + 1,
        "lines": fresh.lines.stop - fresh.lines.start,
    }
