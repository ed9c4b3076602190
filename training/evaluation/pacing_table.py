"""The `pacing` protocol: a simulated month, and a hundred days with shocks, under one budget; by
seed, each with a split, a network and days of its own."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from tqdm import tqdm

from contract.errors import UserError
from contract.figures import Figures
from contract.offers import DEFAULT_HOLDOUT
from contract.pacing import DAYS_LOOKED_AT
from training.commands import peak_mib
from training.data.checkouts import read_offer_log, read_true_probabilities
from training.data.offer_log import Floats, Ints, OfferLog, margins
from training.evaluation import uplift_plots as plots
from training.evaluation.pacing import (
    MARGIN_FLOOR,
    Course,
    Day,
    Demand,
    Paced,
    draw_day,
    first_come,
    oracle_arms,
    run_day,
)
from training.evaluation.uplift_table import Split, by_propensity, enough, enough_asked
from training.uplift.fit import UpliftRecipe, fit_uplift, predicted

MONTH, SHOCKS = 30, 100
USUAL = 1_000.0  # decisions a day
BUDGET_SHARE = 0.5  # of what the oracle would spend on a usual day
_ENDLESS = 2**62
NEAR = 0.98
NAMES = ("tillwise", "unpaced", "propensity", "everyone", "nobody")
_Flags = npt.NDArray[np.bool_]


_NOTES = [
    f"{USUAL:,.0f} decisions a usual day, drawn from checkouts that nothing was learned from, "
    "after a week that does not count; the budget is half of what the oracle would spend; margin "
    f"floor {MARGIN_FLOOR:.0%}; tillwise holds out {DEFAULT_HOLDOUT:.0%}, at a price that is "
    "solved as gateways solve it",
    "of oracle: true expected margin over no offer; the oracle knows all chances and the whole "
    "day; exhausted: under .5 % left when the last hour begins; margin and spend one value a day, "
    "the rest one a seed",
    "everyone: the arm that earns most when all get it; propensity, everyone and unpaced spend as "
    "people come",
    "days any pace could: those of the oracle's on which tillwise would spend 98 % and more if "
    "spending had no price; on the others its network, holdout and cap leave too little; bound "
    "alike: those on which the oracle would, with the same holdout and cap",
    "synthetic",
]


@dataclass
class Days:
    """What every policy came to, day by day, under the budget `amount`."""

    amount: int
    courses: dict[str, list[Course]] = field(default_factory=lambda: {name: [] for name in NAMES})
    oracle_gained: list[float] = field(default_factory=list)
    oracle_wished: list[float] = field(default_factory=list)
    unpriced: list[int] = field(default_factory=list)  # what ours would spend without a price
    oracle_bound: list[int] = field(default_factory=list)  # the same with the oracle's chances

    @property
    def binding(self) -> _Flags:
        """Whether the oracle spends the budget."""
        return np.array(self.oracle_wished) >= self.amount


@dataclass(frozen=True)
class Shop:
    """Where days are drawn from, and whom targeting by propensity would give which arm."""

    demand: Demand
    likely: Ints


def pacing_table(
    folder: Path, seeds: int, output: Path | None, decisions: int | None = None
) -> Figures:
    """The tables of the simulated log in `folder`, over `seeds` splits, learned from `decisions` at
    most. UserError where its truth is not there, and for too few decisions."""
    enough_asked(decisions)
    truth = read_true_probabilities(folder)
    if truth is None:
        raise UserError(f"{folder}: pacing needs simulated checkouts with their truth")
    log = read_offer_log(folder)
    enough(log, folder)
    figures = Figures("benchmark pacing")
    runs: dict[str, list[Days]] = {"month": [], "shocks": []}
    shares: list[float] = []
    for seed in range(seeds):
        split = Split.of(log, truth, seed)
        if decisions is not None:
            split = split.learning_from(decisions)
        shop, share = learned(split)
        shares.append(share)
        rng = np.random.default_rng(seed)
        amount = _budget(rng, shop.demand)
        figures.notes.append(
            f"seed {seed}: learned from {len(split.learned):,} decisions of "
            f"{len(np.unique(split.learned.subject)):,} people, days drawn from "
            f"{len(split.test):,} of {len(np.unique(split.test.subject)):,} others; daily budget "
            f"{amount:,} minor units"
        )
        for name, count in (("month", MONTH), ("shocks", SHOCKS)):
            runs[name].append(run_days(rng, shop, amount, count, shocks=name == "shocks"))
    figures.add("network, without a budget", {"of oracle": shares})
    for name, of_seeds in runs.items():
        add_rows(figures, name, of_seeds)
        if output is not None:
            plots.write(_spend_plot(of_seeds[0], name), output, f"pacing_{name}")
    figures.notes += _NOTES
    return figures


def learned(split: Split) -> tuple[Shop, float]:
    """What a network learned from the `split` makes of its test rows, and which share of the
    oracle's margin it earns there without a budget."""
    assert split.truth is not None
    fitted = fit_uplift(split.learned, UpliftRecipe(), split.seed)
    told = predicted(fitted.model, split.test)[0]
    likely = by_propensity(split, split.of_validation(fitted.out_of_fold), told)
    return shop_of(split.test, told, split.truth, likely), _of_oracle(split.test, told, split.truth)


def shop_of(test: OfferLog, told: Floats, truth: Floats, likely: Ints) -> Shop:
    """The shop of these rows."""
    if not likely.any():  # it would rather offer nothing; what is compared must offer something
        arm = int(told[:, 1:].mean(0).argmax()) + 1
        likely = np.where(told[:, arm] >= np.median(told[:, arm]), arm, 0)
    return Shop(Demand.of(test, told, truth), likely)


def _of_oracle(test: OfferLog, told: Floats, truth: Floats) -> float:
    gained = margins(test, truth)
    gained = gained - gained[:, :1]
    chosen = margins(test, told).argmax(1)
    return float(gained[np.arange(len(test)), chosen].mean() / gained.max(1).mean())


def _budget(rng: np.random.Generator, demand: Demand) -> int:
    days = [draw_day(rng, demand, USUAL, shocks=False) for _ in range(5)]
    wished = [oracle_arms(demand, day.rows, np.inf)[2] for day in days]
    return round(BUDGET_SHARE * float(np.mean(wished)))


def run_days(
    rng: np.random.Generator, shop: Shop, amount: int, count: int, *, shocks: bool
) -> Days:
    """`count` days under every policy, after a week that counts for nothing: what is usual is
    learned from it."""
    days, demand = Days(amount), shop.demand
    best = np.where(demand.allowed, demand.gain, 0.0).argmax(1)
    everyone = np.full(len(best), int(demand.true_gain[:, 1:].mean(0).argmax()) + 1)
    fixed = {
        "unpaced": best,
        "propensity": shop.likely,
        "everyone": everyone,
        "nobody": np.zeros_like(best),
    }
    paced = Paced(rng, demand, DEFAULT_HOLDOUT)
    for number in range(DAYS_LOOKED_AT):
        paced.begin_day(number)
        run_day(rng, demand, draw_day(rng, demand, USUAL, shocks=shocks), amount, paced)
    known = replace(demand, gain=demand.true_gain, cost=demand.true_cost)
    for number in tqdm(range(count), desc="days", unit="day", disable=None):
        day = draw_day(rng, demand, USUAL, shocks=shocks)
        for name, arms in fixed.items():
            course = run_day(rng, demand, day, amount, first_come(demand, arms))
            days.courses[name].append(course)
        paced.begin_day(DAYS_LOOKED_AT + number)
        for told, spent in ((demand, days.unpriced), (known, days.oracle_bound)):
            own = rng.spawn(1)[0]
            spent.append(run_day(own, told, day, _ENDLESS, paced.unpriced(own, told)).spent)
        days.courses["tillwise"].append(run_day(rng, demand, day, amount, paced))
        _oracle(days, demand, day)
    return days


def _oracle(days: Days, demand: Demand, day: Day) -> None:
    arms, _, wished = oracle_arms(demand, day.rows, days.amount)
    days.oracle_gained.append(float(demand.true_gain[day.rows, arms].sum()))
    days.oracle_wished.append(wished)


def add_rows(figures: Figures, title: str, of_seeds: list[Days]) -> None:
    """The rows of the days `title`: of what is counted one value a seed, else one a day."""
    gained = [np.array(days.oracle_gained) for days in of_seeds]
    figures.add(
        f"{title}/oracle",
        {"margin gained": np.concatenate(gained).tolist(), "of oracle": [1.0] * len(gained)},
    )
    for name in NAMES:
        told: dict[str, list[float]] = {}
        for days in of_seeds:
            for metric, values in _figures_of(days, name).items():
                told.setdefault(metric, []).extend(values)
        figures.add(f"{title}/{name}", told, peak_mib=peak_mib())


def _figures_of(days: Days, name: str) -> dict[str, list[float]]:
    courses, amount, binding = days.courses[name], days.amount, days.binding
    spent = np.array([course.spent for course in courses]) / amount
    left = np.array([course.left_at_last_hour for course in courses]) / amount
    near = binding & (spent >= NEAR) & (spent <= 1.0)
    reachable = binding & (np.array(days.unpriced) >= NEAR * amount)
    bound = binding & (np.array(days.oracle_bound) >= NEAR * amount)
    gained = sum(course.gained for course in courses)
    told = {
        "of oracle": gained / float(sum(days.oracle_gained)),
        "days over budget": sum(course.largest > amount for course in courses),
        "days exhausted early": (left < 0.005).sum(),
        "floor broken": sum(course.floor_broken for course in courses),
        "days oracle spends it": binding.sum(),
        "of these within 2 %": near.sum(),
        "days oracle could, bound alike": bound.sum(),
        "days any pace could": reachable.sum(),
        "of these near": (near & reachable).sum(),
    }
    return {
        "margin gained": [course.gained for course in courses],
        "spent of budget": spent.tolist(),
        **{metric: [float(value)] for metric, value in told.items()},
    }


def _spend_plot(days: Days, title: str) -> Figure:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    hours = np.arange(1, 25)
    for name, colour in (("unpaced", "#E69F00"), ("tillwise", "#0072B2")):
        for place, course in enumerate(days.courses[name]):
            label = name if place == 0 else None
            spent = np.array(course.by_hour) / days.amount
            axes.plot(hours, spent, color=colour, alpha=0.25, linewidth=0.9, label=label)
    axes.axhline(1.0, color="#888888", linestyle="--", linewidth=1)
    axes.set_xlabel("hour of the day")
    axes.set_ylabel("spent and reserved, of the budget")
    axes.set_title(f"Spend against budget, {len(days.oracle_gained)} days ({title})")
    legend = axes.legend(frameon=False)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
