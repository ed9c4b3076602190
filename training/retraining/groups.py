"""Groups of people and what they are offered, for the gate on fairness alone: no model and no
feature reads this. Regions stand in the events; age, income and such are read only where they were
named (`--demographics`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.fairness import Comparison, FairnessReport, Measure, audit
from training.data.checkouts import read_checkouts
from training.data.demographics import read_demographics
from training.data.storage import CHECKOUTS_FILE
from training.gates.limits import Limits

_NO_OFFER = "none"
Groups = dict[str, Sequence[str | None]]
Floats = npt.NDArray[np.float64]


def groups_of(
    demographics: str | None, subjects: Sequence[str], regions: Sequence[str | None]
) -> Groups:
    """By attribute the group of each of N decisions; attributes that say nothing are left out."""
    found: Groups = {"region": regions}
    if demographics is not None:
        for name, known in read_demographics(demographics).items():
            found[name] = [known.get(one) for one in subjects]
    return {name: told for name, told in found.items() if any(one is not None for one in told)}


def served(
    groups: Groups, shopper: npt.NDArray[np.int64], ndcg: Floats, filled: Floats, limits: Limits
) -> FairnessReport:
    """Quality and exposure of the answers to T questions."""
    measures = [Measure("NDCG@5", "quality", ndcg), Measure("places filled", "exposure", filled)]
    return audit(groups, measures, shopper, least_people=limits.min_group)


@dataclass(frozen=True)
class Offered:
    """Checkouts at which an offer could have been shown."""

    subject: Sequence[str]
    region: Sequence[str | None]
    offered: Floats  # 1 where one was, or would be


def offers_of(data: Path, start_us: int, end_us: int, uplift: Path | None) -> Mapping[str, Offered]:
    """Who was offered something in the window by the log, and who would be by the network in
    `uplift`; nothing of either where there is no log of checkouts."""
    if not (data / CHECKOUTS_FILE).exists():
        return {}
    log = read_checkouts(data)
    at = log["decided_at"].cast("int64")
    log = log.filter(
        pc.and_(
            pc.and_(pc.greater_equal(at, start_us), pc.less(at, end_us)), pc.is_valid(log["arm"])
        )
    ).combine_chunks()
    if not len(log):
        return {}
    subject = log["subject_id"].to_pylist()
    region = [None if one is None else one["region"] for one in log["context"].to_pylist()]
    was = np.array([arm != _NO_OFFER for arm in log["arm"].to_pylist()], np.float64)
    found = {"offers as logged": Offered(subject, region, was)}
    if uplift is not None:
        found["offers of the new network"] = Offered(subject, region, _would(data, log, uplift))
    return found


def _would(data: Path, log: pa.Table, uplift: Path) -> Floats:
    """Whether the network's best arm is an offer, without a budget's price on it."""
    import torch

    from training.data.checkouts import replayed_features
    from training.uplift.run_folder import read_uplift

    model, _ = read_uplift(uplift)
    value = np.array(log["value"].to_pylist(), np.float32)
    with torch.no_grad():
        answer = model(
            torch.from_numpy(replayed_features(data, log)), torch.from_numpy(value)[:, None]
        )
    chance = answer.numpy().astype(np.float64)[..., 0]
    margin = np.array(log["margin"].to_pylist(), np.float64)
    reduction = np.array(log["reductions"].to_pylist(), np.float64)
    gain = chance * (margin[:, None] - reduction)
    best: Floats = (gain.argmax(axis=1) > 0).astype(np.float64)
    return best


def audited(
    demographics: str | None, found: Mapping[str, Offered], limits: Limits
) -> FairnessReport | None:
    """Every way of offering between all groups; None where there is nothing to audit."""
    comparisons: list[Comparison] = []
    for name, one in found.items():
        person = np.unique(np.array(one.subject), return_inverse=True)[1]
        groups = groups_of(demographics, one.subject, one.region)
        measures = [Measure(name, "offers", one.offered)]
        report = audit(groups, measures, person, least_people=limits.min_group)
        comparisons += report.comparisons
    return FairnessReport(tuple(comparisons), limits.min_group) if found else None
