"""Whether groups of people are treated alike: shown as much, served as well, and above all offered
as much. Groups are told for the audit alone; no model and no decision ever sees them.

Demographic parity asks for the same mean of a measure in every group; equal opportunity asks for it
among those who count (who would buy with an offer, who were looking for something). Both are told
as the highest group less the lowest, and as the lowest over the highest, which is what fairlearn
calls demographic parity and equal opportunity difference and ratio. What is not in fairlearn and
matters here: people are resampled, not rows, because one person makes many decisions; groups with
too few people are named and not judged; and because the two groups that are told of are picked by
looking, the interval of their difference is widened for every pair that could have been picked
(Bonferroni). Told of are the extremes, unless other pairs surely differ and they do not.

Pure numpy. Shapes: N decisions, P people, G groups of an attribute, M measures, R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from contract.errors import GateRefused

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# `offers` and `opportunity` are about who is offered something, of all and of those who count.
Kind = Literal["offers", "opportunity", "exposure", "quality"]

LEAST_PEOPLE: Final = 50
RESAMPLES: Final = 400
_AT_ONCE = 50  # resamples in memory together
_UNSURE = 0.05


@dataclass(frozen=True)
class Measure:
    """One number for every decision: `values` [N], of the rows where `counted` [N] (None: all),
    each with its `weight` [N] (None: 1), as inverse propensities are."""

    name: str
    kind: Kind
    values: Floats
    counted: Bools | None = None
    weight: Floats | None = None


@dataclass(frozen=True)
class GroupFigure:
    """A group's mean of a measure with its 95 % interval; `people` and `decisions` that counted."""

    group: str
    people: int
    decisions: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One measure between the groups of one attribute. The difference is that of the `highest` and
    the `lowest` group of the pair that is told of, the ratio the lowest over the highest; both with
    intervals that hold for whichever pair that is. `small`: groups with too few people to judge."""

    attribute: str
    measure: str
    kind: Kind
    groups: tuple[GroupFigure, ...]
    small: tuple[GroupFigure, ...]
    highest: str
    lowest: str
    difference: float
    difference_low: float
    difference_high: float
    ratio: float
    ratio_low: float
    ratio_high: float

    @property
    def judged(self) -> bool:
        """Whether there are two groups large enough to be compared."""
        return len(self.groups) > 1

    @property
    def proven(self) -> bool:
        """Whether the difference is more than chance."""
        return self.judged and self.difference_low > 0


@dataclass(frozen=True)
class FairnessReport:
    """Every measure between the groups of every attribute."""

    comparisons: tuple[Comparison, ...]
    least_people: int = LEAST_PEOPLE

    def find(self, attribute: str, measure: str) -> Comparison:
        """The comparison of `measure` by `attribute`. Raises KeyError."""
        for one in self.comparisons:
            if (one.attribute, one.measure) == (attribute, measure):
                return one
        raise KeyError((attribute, measure))

    def as_json(self) -> list[dict[str, Any]]:
        """For a file beside a release."""
        return [asdict(one) for one in self.comparisons]


@dataclass(frozen=True)
class FairnessLimits:
    """The least ratio of the lowest to the highest group, by kind of measure. 0.8 for offers is the
    four-fifths rule of the US guidelines on employee selection (29 CFR 1607.4 D). A ratio below it
    is refused only where the difference is more than chance. Exposure has a wider limit: what is
    shown follows what is bought. `must_judge`: attributes that have to
    have two groups large enough, so that a gate can not be passed with no data."""

    offers: float = 0.8
    opportunity: float = 0.8
    exposure: float = 0.5
    quality: float = 0.8
    must_judge: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in ("offers", "opportunity", "exposure", "quality"):
            if not 0 <= getattr(self, kind) <= 1:
                raise ValueError(f"{kind} is {getattr(self, kind)}, not from 0 to 1")

    def of(self, kind: Kind) -> float:
        """The least ratio for `kind`."""
        return float(getattr(self, kind))


@dataclass(frozen=True)
class Breach:
    """Why a gate refuses."""

    gate: str  # fairness/offers, fairness/quality, ...
    text: str


def audit(
    attributes: Mapping[str, Sequence[str | None]],
    measures: Sequence[Measure],
    person: Ints,
    *,
    least_people: int = LEAST_PEOPLE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FairnessReport:
    """Compare `measures` between the groups of every attribute ([N] names each, None where a
    decision's group is not known: it is in no group). `person` [N]: whose decision it is.
    Raises ValueError where the lengths differ."""
    size = len(person)
    for name, groups in attributes.items():
        if len(groups) != size:
            raise ValueError(f"{name}: {len(groups)} groups for {size} decisions")
    for measure in measures:
        if len(measure.values) != size:
            raise ValueError(f"{measure.name}: {len(measure.values)} values for {size} decisions")
    who = np.unique(person, return_inverse=True)[1]
    comparisons: list[Comparison] = []
    for attribute, groups in attributes.items():
        names = sorted({group for group in groups if group is not None})
        place = {group: at for at, group in enumerate(names)}
        code = np.array([-1 if group is None else place[group] for group in groups], np.int64)
        sums = _Sums.of(measures, who, code, len(names))
        drawn = sums.drawn(resamples, np.random.default_rng(seed))
        for at, measure in enumerate(measures):
            found = _figures(names, sums, at, drawn[:, at])
            comparisons.append(_compared(attribute, measure, found, drawn[:, at], least_people))
    return FairnessReport(tuple(comparisons), least_people)


def breaches(report: FairnessReport, limits: FairnessLimits) -> tuple[Breach, ...]:
    """What of `report` is beyond `limits`: a ratio below the least whose difference is more than
    chance, or an attribute that had to be judged and could not."""
    found = [
        Breach(
            f"fairness/{one.kind}",
            f"{one.measure} by {one.attribute}: {one.lowest} has {one.ratio:.2f} of {one.highest} "
            f"({_told(one, one.lowest)} against {_told(one, one.highest)}), less than "
            f"{limits.of(one.kind):.2f}",
        )
        for one in report.comparisons
        if one.proven and one.ratio < limits.of(one.kind)
    ]
    judged = {one.attribute for one in report.comparisons if one.judged}
    found += [
        Breach(
            "fairness/groups",
            f"{attribute}: no two groups of {report.least_people} people or more to compare",
        )
        for attribute in limits.must_judge
        if attribute not in judged
    ]
    return tuple(found)


def gate(report: FairnessReport, limits: FairnessLimits) -> None:
    """Raises GateRefused naming every gate that `report` does not pass."""
    found = breaches(report, limits)
    if found:
        raise GateRefused("; ".join(f"{one.gate}: {one.text}" for one in found))


def _told(one: Comparison, group: str) -> str:
    value = next(figure.value for figure in one.groups if figure.group == group)
    return f"{value:.4g}"


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of every person, measure and group: the weighted sum, the weights, and how many rows."""

    total: Floats  # [P, M, G]
    weight: Floats  # [P, M, G]
    rows: Floats  # [P, M, G]

    @classmethod
    def of(cls, measures: Sequence[Measure], who: Ints, code: Ints, num_groups: int) -> "_Sums":
        people = int(who.max()) + 1 if len(who) else 0
        shape = (people, len(measures), num_groups)
        total, weight, rows = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for at, measure in enumerate(measures):
            kept = code >= 0
            if measure.counted is not None:
                kept = kept & measure.counted
            cell = (who[kept], code[kept])
            each = np.ones(len(who)) if measure.weight is None else measure.weight
            np.add.at(total[:, at], cell, (each * measure.values)[kept])
            np.add.at(weight[:, at], cell, each[kept])
            np.add.at(rows[:, at], cell, 1.0)
        return cls(total, weight, rows)

    @property
    def means(self) -> Floats:
        """[M, G], nan where nobody counts."""
        return _divided(self.total.sum(0), self.weight.sum(0))

    def drawn(self, resamples: int, rng: np.random.Generator) -> Floats:
        """[R, M, G] the means of people drawn with replacement."""
        people = len(self.total)
        flat = [part.reshape(people, -1) for part in (self.total, self.weight)]
        means: list[Floats] = []
        for start in range(0, resamples, _AT_ONCE):
            count = min(_AT_ONCE, resamples - start)
            drawn = [rng.integers(0, people, people) for _ in range(count)]
            times = np.stack([np.bincount(one, minlength=people) for one in drawn])
            means += [_divided(times @ flat[0], times @ flat[1])]
        return np.concatenate(means).reshape(resamples, *self.total.shape[1:])


def _divided(total: Floats, weight: Floats) -> Floats:
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def _figures(names: Sequence[str], sums: _Sums, at: int, drawn: Floats) -> list[GroupFigure]:
    means = sums.means[at]
    found = []
    for group, name in enumerate(names):
        rows = sums.rows[:, at, group]
        spread = _deviation(drawn[:, group])
        reach = NormalDist().inv_cdf(1 - _UNSURE / 2) * spread
        value = float(means[group])
        found.append(
            GroupFigure(
                *(name, int((rows > 0).sum()), int(rows.sum())),
                *(value, value - reach, value + reach),
            )
        )
    return found


def _compared(
    attribute: str, measure: Measure, found: list[GroupFigure], drawn: Floats, least_people: int
) -> Comparison:
    large = [at for at, one in enumerate(found) if one.people >= least_people]
    groups = tuple(found[at] for at in large)
    small = tuple(one for at, one in enumerate(found) if at not in large and one.people)
    named = (attribute, measure.name, measure.kind, groups, small)
    if len(large) < 2:
        only = groups[0].group if groups else ""
        return Comparison(*named, only, only, *(0.0, 0.0, 0.0), *(1.0, 1.0, 1.0))
    pairs = len(large) * (len(large) - 1) / 2
    reach = NormalDist().inv_cdf(1 - _UNSURE / pairs / 2)
    high, low = _told_apart(found, large, drawn, reach)
    best, worst = found[high].value, found[low].value
    spread = reach * _deviation(drawn[:, high] - drawn[:, low])
    ratio = _ratio(found[low], found[high])
    apart = reach * _deviation(_divided(drawn[:, low], drawn[:, high])) if best > 0 else 0.0
    return Comparison(
        *(*named, found[high].group, found[low].group),
        *(best - worst, best - worst - spread, best - worst + spread),
        *(ratio, max(ratio - apart, 0.0), ratio + apart),
    )


def _told_apart(
    found: list[GroupFigure], large: list[int], drawn: Floats, reach: float
) -> tuple[int, int]:
    """The higher and the lower group of the pair to tell of: of those whose difference is more than
    chance that with the lowest ratio, or else the extremes. A few people far off would otherwise
    hide two large groups that surely differ."""
    order = sorted(large, key=lambda at: found[at].value)
    proven = [
        (high, low)
        for low, high in combinations(order, 2)
        if found[high].value - found[low].value > reach * _deviation(drawn[:, high] - drawn[:, low])
    ]
    if not proven:
        return order[-1], order[0]
    return min(proven, key=lambda pair: _ratio(found[pair[1]], found[pair[0]]))


def _ratio(low: GroupFigure, high: GroupFigure) -> float:
    return low.value / high.value if high.value > 0 else 1.0


def _deviation(values: Floats) -> float:
    """Standard deviation over the resamples in which there is a value."""
    kept = values[np.isfinite(values)]
    return float(kept.std(ddof=1)) if len(kept) > 1 else 0.0


def small_groups(report: FairnessReport) -> Iterator[tuple[str, str, int]]:
    """Attribute, group and people of each group that is too small to judge, once each."""
    seen: set[tuple[str, str]] = set()
    for one in report.comparisons:
        for group in one.small:
            if (one.attribute, group.group) not in seen:
                seen.add((one.attribute, group.group))
                yield one.attribute, group.group, group.people
