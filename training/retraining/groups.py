"""Groups of people and what they are offered, for the gate on fairness alone: no model and no
feature reads this. Regions stand in the events; age, income and such are read only where they were
named (`--demographics`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contract.clock import to_us
from contract.errors import UserError
from contract.fairness import Comparison, FairnessReport, Measure, audit
from contract.offer_arms import NO_OFFER_ARM
from training.data.checkouts import offer_log, read_randomised
from training.data.demographics import read_demographics
from training.data.logged_checkouts import has_decisions, read_offers_shown
from training.data.offer_log import margins
from training.data.storage import CHECKOUTS_FILE
from training.gates.limits import Limits

if TYPE_CHECKING:
    from training.evaluation.network_chances import Network

_NETWORK = "offers of the network"
Groups = dict[str, Sequence[str | None]]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


def groups_of(
    demographics: str | None, subjects: Sequence[str], regions: Sequence[str | None]
) -> Groups:
    """By attribute the group of each of N decisions; attributes that say nothing are left out."""
    found: Groups = {"region": regions}
    if demographics is not None:
        for name, known in read_demographics(demographics).items():
            found[name] = [known.get(one) for one in subjects]
    return {name: told for name, told in found.items() if any(one is not None for one in told)}


def named(demographics: str | None) -> tuple[str, ...]:
    """The attributes that were named, which therefore have to be judged."""
    return () if demographics is None else tuple(read_demographics(demographics))


def novelty(ranked: Numbers, own: Sequence[Numbers]) -> Floats:
    """[T] how much of each list [T, K] of items its shopper had not bought before (`own`), a place
    counting 1 / log2(place + 1) as in NDCG."""
    weight = 1.0 / np.log2(np.arange(ranked.shape[1]) + 2)
    known = np.array([np.isin(row, mine) for row, mine in zip(ranked, own, strict=True)])
    share: Floats = ((ranked >= 0) & ~known) @ weight / weight.sum()
    return share


def served(
    groups: Groups, shopper: Numbers, ndcg: Floats, new: Floats, limits: Limits
) -> FairnessReport:
    """Quality of the answers to T questions, and how much that is new they show."""
    measures = [
        Measure("NDCG@5", "quality", ndcg),
        Measure("what is new to the shopper", "exposure", new),
    ]
    return audit(groups, measures, shopper, least_people=limits.min_group)


@dataclass(frozen=True)
class Offered:
    """Checkouts at which an offer could have been shown."""

    subject: Sequence[str]
    region: Sequence[str | None]
    offered: Floats  # 1 where one was, or would be


@dataclass(frozen=True)
class Offers:
    """Ways of offering by name, and in words those that go out and that nobody can judge."""

    found: Mapping[str, Offered]
    unjudged: tuple[str, ...] = ()


def offers_of(data: Path, start_us: int, end_us: int, network: "Network | None") -> Offers:
    """Who was offered something in the window by the log, and who would be by the network."""
    within_us = start_us, end_us
    logged = _logged(data, within_us)
    found = {} if logged is None else {"offers as logged": logged}
    if network is None:
        return Offers(found)
    try:
        would = _would(data, within_us, network)
    except UserError as error:  # of the log: of it there may be none
        return Offers(found, (f"{_NETWORK}: {error}",))
    return Offers(found | {_NETWORK: would})


def _logged(data: Path, within_us: tuple[int, int]) -> Offered | None:
    """None where nobody was shown an offer."""
    if (data / CHECKOUTS_FILE).exists():
        rows = read_randomised(data, within_us).to_pylist()
        for row in rows:
            row["offered"] = row["arm"] != NO_OFFER_ARM
    elif has_decisions(data):
        start_us, end_us = within_us
        rows = [
            row for row in read_offers_shown(data) if start_us <= to_us(row["decided_at"]) < end_us
        ]
    else:
        return None
    offered = [row["offered"] for row in rows]
    return _offered(rows, offered) if any(offered) else None


def _offered(rows: Sequence[Mapping[str, Any]], offered: Sequence[bool]) -> Offered:
    contexts = [row["context"] for row in rows]
    return Offered(
        [row["subject_id"] for row in rows],
        [None if one is None else one["region"] for one in contexts],
        np.array(offered, np.float64),
    )


def _would(data: Path, within_us: tuple[int, int], network: "Network") -> Offered:
    """Whether the network's best arm is an offer, without a budget's price on it."""
    from training.evaluation.network_chances import network_chances

    table = read_randomised(data, within_us)
    log = offer_log(data, table)
    told, _ = network_chances(network, data, log)  # an arm it does not know earns less than none
    return _offered(table.to_pylist(), (margins(log, told).argmax(axis=1) > 0).tolist())


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
