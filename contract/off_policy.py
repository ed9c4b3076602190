"""What a policy that was never live would have earned, from decisions that another one made by
chance and with the chances on record.

With w = (chance of what was done under the new policy) / (chance under the logging one):

  IPS     mean of w r                                   Horvitz and Thompson, JASA 1952
  clipped mean of min(w, most) r                        Ionides, JCGS 2008
  SNIPS   sum of w r / sum of w                         Swaminathan and Joachims, NIPS 2015
  DM      mean of the model's word for the new policy
  DR      DM + mean of w (r - model's word for what was done)     Dudik, Langford and Li, ICML 2011

IPS and DR are unbiased where the logged chances are right and above 0 wherever the new policy goes;
SNIPS is within 1/N of that and steadier; a clipped weight buys steadiness with bias; DM is as good
as its model. Intervals are the mean's own over people, who make several decisions each (sums of
influence by person). Where the new policy does what the logging one never did, nobody can tell:
`overlap` says so, and how few decisions an estimate really stands on (Kish's effective number).

Pure numpy. Shape: N decisions, or N product slots of decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FLOOR: Final = 0.01  # a chance below it makes weights above a hundred
MOST_WEIGHT: Final = 20.0
LEAST_EFFECTIVE: Final = 100.0
LEAST_PEOPLE: Final = 30  # an interval over fewer is none that a normal distribution gives
MOST_UNSUPPORTED: Final = 0.01
_LEVEL: Final = 0.95
_TELLTALE = 4.0  # standard errors of the mean weight from 1 that chance does not explain


@dataclass(frozen=True)
class Logged:
    """What was done, and how likely the new policy is to do the same.

    `unsupported` [N]: how likely the new policy is to do what the logging one had no chance of, and
    `rare` [N] what it had less than `FLOOR` of. `told` [N]: what a model that has not seen the row
    expects of what was done, and `direct` [N] of the new policy; both needed for DM and DR.
    """

    reward: Floats  # [N]
    propensity: Floats  # [N] of what was done under the logging policy, above 0
    target: Floats  # [N] of the same under the new policy
    person: Ints  # [N]
    unsupported: Floats  # [N]
    rare: Floats  # [N]
    told: Floats | None = None  # [N]
    direct: Floats | None = None  # [N]

    def __post_init__(self) -> None:
        if not len(self.reward):
            raise ValueError("no decision to learn from")
        if not (np.isfinite(self.propensity) & (self.propensity > 0)).all():
            raise ValueError("a decision was made that had no chance: propensities must be above 0")
        for name in ("reward", "told", "direct"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{name}: every decision needs a number")
        if not ((self.target >= 0) & (self.target <= 1 + 1e-9)).all():
            raise ValueError("chances of the new policy must be from 0 to 1")

    @property
    def weight(self) -> Floats:
        """[N] how much each decision says of the new policy."""
        weight: Floats = self.target / self.propensity
        return weight


def logged(
    arm: Ints,
    propensity: Floats,
    target: Floats,
    reward: Floats,
    person: Ints,
    model: Floats | None = None,
) -> Logged:
    """From choices among A arms: `arm` [N] that was chosen, chances of all arms under the logging
    and the new policy, [N, A] each, and what a model expects of every arm, [N, A]. Raises
    ValueError where the new policy's chances do not add up to 1."""
    if not np.allclose(target.sum(1), 1.0, atol=1e-6):
        raise ValueError("chances of the new policy do not add up to 1")
    row = np.arange(len(arm))
    return Logged(
        reward=reward,
        propensity=propensity[row, arm],
        target=target[row, arm],
        person=person,
        unsupported=np.where(propensity > 0, 0.0, target).sum(1),
        rare=np.where(propensity < FLOOR, target, 0.0).sum(1),
        told=None if model is None else model[row, arm],
        direct=None if model is None else (target * model).sum(1),
    )


@dataclass(frozen=True)
class Estimate:
    """A mean per decision with its 95 % interval. `influence` [N] adds up to nothing: what each
    decision pulls the estimate by, so that estimates of the same log can be subtracted."""

    value: float
    error: float
    low: float
    high: float
    influence: Floats
    person: Ints

    def less(self, other: "Estimate") -> "Estimate":
        """The difference to `other`, of the same decisions."""
        return _estimate(self.value - other.value, self.influence - other.influence, self.person)


@dataclass(frozen=True)
class Overlap:
    """How much of the new policy the log can speak of. `warnings` in words; `refused`: why nothing
    may be concluded, or None."""

    decisions: int
    people: int
    effective: float  # number of decisions that would say as much if they all counted alike
    mean_weight: float  # 1 where the chances on record are right
    most_weight: float
    unsupported: float  # share of the new policy's choices that the logging one never makes
    rare: float  # share that it makes less often than FLOOR
    warnings: tuple[str, ...]
    refused: str | None


def ips(log: Logged) -> Estimate:
    """Inverse propensity score."""
    return _mean(log.weight * log.reward, log.person)


def clipped_ips(log: Logged, most: float = MOST_WEIGHT) -> Estimate:
    """IPS with no weight above `most`: biased towards 0 by what is cut off."""
    return _mean(np.minimum(log.weight, most) * log.reward, log.person)


def snips(log: Logged) -> Estimate:
    """Self-normalised IPS. nan where no decision says anything of the new policy."""
    weight = log.weight
    total = float(weight.sum())
    if total <= 0:
        nothing = np.full(len(weight), np.nan)
        return Estimate(*(float("nan"),) * 4, nothing, log.person)
    value = float((weight * log.reward).sum()) / total
    return _estimate(value, weight * (log.reward - value) / (total / len(weight)), log.person)


def direct_method(log: Logged) -> Estimate:
    """The model's word alone; its interval knows nothing of the model's own error."""
    if log.direct is None:
        raise ValueError("the direct method needs a model's expectations")
    return _mean(log.direct, log.person)


def doubly_robust(log: Logged, most: float | None = None) -> Estimate:
    """DR, with no weight above `most` where that is said."""
    if log.direct is None or log.told is None:
        raise ValueError("the doubly robust estimate needs a model's expectations")
    weight = log.weight if most is None else np.minimum(log.weight, most)
    return _mean(log.direct + weight * (log.reward - log.told), log.person)


def on_policy(reward: Floats, person: Ints) -> Estimate:
    """What the logging policy earned itself."""
    return _mean(reward, person)


def estimates(log: Logged) -> Mapping[str, Estimate]:
    """Every estimate that `log` allows, by name."""
    found = {"IPS": ips(log), "IPS clipped": clipped_ips(log), "SNIPS": snips(log)}
    if log.direct is not None:
        found |= {"DM": direct_method(log), "DR": doubly_robust(log)}
        found["DR clipped"] = doubly_robust(log, MOST_WEIGHT)
    return found


def effective_size(weight: Floats) -> float:
    """Kish's effective number of decisions: (sum of w)^2 / sum of w^2; 0 where all w are 0."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def overlap(log: Logged, least_effective: float = LEAST_EFFECTIVE) -> Overlap:
    """Whether the log can say anything of the new policy, and with how much care."""
    weight = log.weight
    effective, mean = effective_size(weight), float(weight.mean())
    unsupported, rare = float(log.unsupported.mean()), float(log.rare.mean())
    most = float(weight.max())
    said: list[str] = []
    if 0 < unsupported <= MOST_UNSUPPORTED:
        said.append(f"common support: {unsupported:.2%} of its choices were never made")
    if rare - unsupported > 0.01:
        said.append(f"propensity floor: {rare:.1%} of its choices had a chance below {FLOOR}")
    if most > MOST_WEIGHT:
        said.append(f"max weight: one decision counts {most:.0f} times; see the clipped estimates")
    if effective < 0.1 * len(weight):
        said.append(
            f"effective sample size: {effective:.0f} of {len(weight)} decisions, so intervals are "
            "those of a small log"
        )
    error = _mean(weight, log.person).error
    if unsupported == 0 and abs(mean - 1.0) > _TELLTALE * max(error, 1e-12):
        said.append(
            f"mean weight: {mean:.3f} instead of 1, more than chance explains; the chances on "
            "record are not those that decisions were made by"
        )
    people = len(np.unique(log.person))
    refused = None
    if unsupported > MOST_UNSUPPORTED:
        refused = f"{unsupported:.1%} of its choices were never made, so nobody knows their outcome"
    elif effective < least_effective:
        refused = (
            f"only {effective:.0f} decisions' worth of the log do what it would do, fewer than "
            f"{least_effective:.0f}"
        )
    elif people < LEAST_PEOPLE:
        refused = f"only {people} people made the decisions, fewer than {LEAST_PEOPLE}"
    return Overlap(
        len(weight), people, effective, mean, most, unsupported, rare, tuple(said), refused
    )


def _mean(values: Floats, person: Ints) -> Estimate:
    value = float(values.mean())
    return _estimate(value, values - value, person)


def _estimate(value: float, influence: Floats, person: Ints) -> Estimate:
    """The error is that of a mean over people of unequal numbers of decisions; one person's
    decisions say nothing of other people, so that it knows no bounds."""
    people, who = np.unique(person, return_inverse=True)
    if len(people) < 2:
        return Estimate(value, np.inf, -np.inf, np.inf, influence, person)
    sums = np.bincount(who, influence, len(people))
    more = len(people) / (len(people) - 1)
    error = float(np.sqrt(more * (sums**2).sum())) / len(influence)
    reach = NormalDist().inv_cdf(0.5 + _LEVEL / 2) * error
    return Estimate(value, error, value - reach, value + reach, influence, person)
