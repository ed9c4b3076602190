"""An offer policy judged on decisions that another policy made at random: its chances for every
logged decision, a model of the outcome that has not seen the person, and the table of estimates.

Shapes: N decisions, A arms (0 is no offer), F features. Money is minor units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract import off_policy as ope
from contract.figures import Figures
from contract.off_policy import Estimate, Logged, Overlap
from contract.policy import NO_OFFER, choose, permitted
from training.data.offer_log import Floats, OfferLog, margins

FOLDS = 2
RECOMMENDED = "DR"
# Of a standardised feature's squared sum: enough that forty features do no harm on a few hundred
# rows of an arm.
_RIDGE, _RIDGE_OF_ARM = 1e-3, 5e-2


@dataclass(frozen=True)
class Terms:
    """What a shop decides about a policy besides its network. `price` of a unit spent, as a binding
    budget makes it; `arms` that may be offered (None: all of the log's)."""

    price: float = 0.0
    holdout_share: float = 0.0
    explore_share: float = 0.0
    margin_floor: float | None = None
    arms: frozenset[str] | None = None


def earned(log: OfferLog) -> Floats:
    """[N] what every decision brought."""
    got: Floats = log.outcome * (log.margin - log.reduction[np.arange(len(log)), log.arm])
    return got


def allowed_arms(log: OfferLog, terms: Terms) -> npt.NDArray[np.bool_]:
    """[N, A] the arms that each decision may have; no offer always."""
    may = np.array([terms.arms is None or name in terms.arms for name in log.arms])
    may[NO_OFFER] = True
    rows = zip(log.reduction, log.value, log.margin, strict=True)
    return np.array(
        [may & permitted(taken, v, m, np.inf, terms.margin_floor) for taken, v, m in rows]
    ).reshape(len(log), len(log.arms))


def chances(log: OfferLog, told: Floats, terms: Terms) -> Floats:
    """[N, A] how likely each arm is under the policy that expects the outcome with the chances
    `told` [N, A]: the gateway's own choice (contract.policy)."""
    worth = margins(log, told)
    gain, cost = worth - worth[:, :1], told * log.reduction
    allowed = allowed_arms(log, terms)
    found = np.empty_like(gain)
    for row in range(len(log)):
        found[row] = choose(
            *(gain[row], cost[row], allowed[row], terms.price, 0.0),
            holdout_share=terms.holdout_share,
            explore_share=terms.explore_share,
        ).propensities
    return found


def always(log: OfferLog, arm: str) -> Floats:
    """[N, A] of the policy that gives everybody `arm`. KeyError where the log has none."""
    if arm not in log.arms:
        raise KeyError(arm)
    return np.tile(np.eye(len(log.arms))[log.arms.index(arm)], (len(log), 1))


def outcome_model(log: OfferLog, seed: int = 0) -> Floats:
    """[N, A] the chance of the outcome under every arm by ridge regressions that have not seen the
    row's person: one over all arms, and one of what it misses for each arm. Any model keeps DR
    unbiased, a better one only narrows it; this one takes milliseconds (docs/lab.md)."""
    fold = np.random.default_rng(seed).integers(0, FOLDS, int(log.subject.max()) + 1)[log.subject]
    told = np.zeros((len(log), len(log.arms)))
    features = log.features.astype(np.float64)
    for number in range(FOLDS):
        here = fold == number
        if not here.any():
            continue
        if here.all():  # one person: nothing to learn from others
            told[:] = log.outcome.mean()
            continue
        learn = ~here
        design = _design(features, learn)
        common = _ridge(design[learn], log.outcome[learn], _RIDGE)
        level = design @ common
        for arm in range(len(log.arms)):
            got = learn & (log.arm == arm)
            own = _ridge(design[got], (log.outcome - level)[got], _RIDGE_OF_ARM)
            told[here, arm] = level[here] + design[here] @ own
    clipped: Floats = np.clip(told, 0.0, 1.0)
    return clipped


def _design(features: Floats, learn: npt.NDArray[np.bool_]) -> Floats:
    """[N, 1 + F] a level and `features` [N, F] as standardised on the rows `learn`; what was
    constant there may be anything elsewhere, and says nothing."""
    mean, spread = features[learn].mean(0), features[learn].std(0)
    apart = np.where(spread > 0, (features - mean) / np.where(spread > 0, spread, 1.0), 0.0)
    design: Floats = np.column_stack([np.ones(len(features)), np.clip(apart, -5.0, 5.0)])
    return design


def _ridge(design: Floats, target: Floats, penalty: float) -> Floats:
    """Weights, the first of them a level that costs nothing."""
    size = design.shape[1]
    if not len(design):
        return np.zeros(size)
    ridge = np.full(size, penalty * len(design) + 1.0)
    ridge[0] = 1e-9
    solved = np.linalg.solve(design.T @ design + np.diag(ridge), design.T @ target)
    return np.asarray(solved, np.float64)


def as_logged(log: OfferLog, target: Floats, model: Floats | None) -> Logged:
    """`log` for estimates of what the policy with chances `target` [N, A] earns; `model` [N, A] are
    chances of the outcome."""
    expected = None if model is None else margins(log, model)
    return ope.logged(log.arm, log.propensity, target, earned(log), log.subject, expected)


@dataclass(frozen=True)
class Judgement:
    """Every estimate of one policy, of its lead over the logging one, and how far they carry."""

    estimates: Mapping[str, Estimate]
    leads: Mapping[str, Estimate]
    logging: Estimate
    overlap: Overlap
    truth: float | None = None
    logging_truth: float | None = None

    @classmethod
    def of(cls, log: OfferLog, target: Floats, truth: Floats | None = None) -> "Judgement":
        """`truth` [N, A] are the simulator's chances; they are put beside the estimates alone."""
        told = as_logged(log, target, outcome_model(log))
        logging = ope.on_policy(told.reward, told.person)
        found = ope.estimates(told)
        leads = {name: one.less(logging) for name, one in found.items()}
        known, before = None, None
        if truth is not None:
            worth = margins(log, truth)
            known = float((target * worth).sum(1).mean())
            before = float((log.propensity * worth).sum(1).mean())
        return cls(found, leads, logging, ope.overlap(told), known, before)

    def add_to(self, figures: Figures, name: str) -> None:
        """One row for the logging policy, one for each estimate, one for the overlap."""
        figures.add("logging", _row(self.logging, self.logging_truth))
        for estimator, one in self.estimates.items():
            lead = self.leads[estimator]
            ends = {"lead": [lead.value], "lead low": [lead.low], "lead high": [lead.high]}
            figures.add(f"{name}/{estimator}", _row(one, self.truth) | ends)
        seen = self.overlap
        figures.add(
            f"{name}/overlap",
            {
                "decisions": [float(seen.decisions)],
                "effective": [seen.effective],
                "mean weight": [seen.mean_weight],
                "most weight": [seen.most_weight],
                "unsupported": [seen.unsupported],
            },
        )
        figures.notes += [f"overlap: {text}" for text in seen.warnings]
        figures.notes.append(self.verdict)

    @property
    def verdict(self) -> str:
        """What the recommended estimate says, in a sentence."""
        lead = self.leads[RECOMMENDED]
        told = f"{lead.value:+.1f} ({lead.low:+.1f} to {lead.high:+.1f}) minor units a decision"
        if lead.low > 0:
            return f"{RECOMMENDED}: it earns more than the policy that was live, {told}"
        if lead.high < 0:
            return f"{RECOMMENDED}: it earns less than the policy that was live, {told}"
        return f"{RECOMMENDED}: no difference to the policy that was live is proven, {told}"


def _row(one: Estimate, truth: float | None) -> dict[str, list[float]]:
    row = {"margin": [one.value], "low": [one.low], "high": [one.high]}
    if truth is not None:
        row |= {"truth": [truth], "off": [one.value / truth - 1.0 if truth else float("nan")]}
    return row
