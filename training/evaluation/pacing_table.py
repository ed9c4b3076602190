"""The `pacing` protocol: a simulated month, and a hundred days with shocks, under one budget."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from contract.errors import UserError
from contract.figures import Figures
from contract.offers import DEFAULT_HOLDOUT
from training.commands import peak_mib
from training.data.checkouts import read_offer_log, read_true_probabilities
from training.data.offer_log import Ints
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
from training.evaluation.uplift_table import Split, by_propensity
from training.uplift.fit import UpliftRecipe, fit_uplift, predicted

MONTH, SHOCKS = 30, 100
USUAL = 1_000.0  # decisions a day
BUDGET_SHARE = 0.5  # of what the oracle would spend on a usual day
_ENDLESS = 2**62
NEAR = 0.98
NAMES = ("tillwise", "unpaced", "propensity", "everyone", "nobody")


@dataclass
class _Days:
    """What every policy came to, day by day."""

    courses: dict[str, list[Course]] = field(default_factory=dict)
    oracle_gained: list[float] = field(default_factory=list)
    oracle_wished: list[float] = field(default_factory=list)
    unpriced: list[int] = field(default_factory=list)  # what ours would spend without a price


def pacing_table(folder: Path, seed: int, output: Path | None) -> Figures:
    """The tables of the simulated log in `folder`. UserError where its truth is not there."""
    truth = read_true_probabilities(folder)
    if truth is None:
        raise UserError(f"{folder}: pacing needs simulated checkouts with their truth")
    split = Split.of(read_offer_log(folder), truth, seed)
    assert split.truth is not None
    fitted = fit_uplift(split.learned, UpliftRecipe(), seed)
    told = predicted(fitted.model, split.test)[0]
    demand = Demand.of(split.test, told, split.truth)
    likely = by_propensity(split, split.of_validation(fitted.out_of_fold), told)
    if not likely.any():  # it would rather offer nothing; what is compared must offer something
        arm = int(told[:, 1:].mean(0).argmax()) + 1
        likely = np.where(told[:, arm] >= np.median(told[:, arm]), arm, 0)
    rng = np.random.default_rng(seed)
    amount = _budget(rng, demand)
    figures = Figures("benchmark pacing")
    for name, count, shocks in (("month", MONTH, False), ("shocks", SHOCKS, True)):
        days = _run(rng, demand, likely, amount, count, shocks=shocks)
        _add(figures, name, days, amount)
        if output is not None:
            plots.write(_spend_plot(days, amount, name), output, f"pacing_{name}")
    figures.notes += [
        f"{USUAL:,.0f} decisions a usual day, drawn from {len(split.test)} checkouts that nothing "
        f"was learned from; daily budget {amount:,} minor units, half of what the oracle would "
        f"spend; margin floor {MARGIN_FLOOR:.0%}; tillwise holds out {DEFAULT_HOLDOUT:.0%}",
        "of oracle: true expected margin over no offer; the oracle knows all chances and the whole "
        "day; exhausted: under .5 % left when the last hour begins; one value a day",
        "everyone: the arm that earns most when all get it; propensity, everyone and unpaced spend "
        "as people come",
        "days any pace could: those of the oracle's on which tillwise would spend 98 % and more if "
        "spending had no price; on the others its network, holdout and cap leave too little",
        "synthetic",
    ]
    return figures


def _budget(rng: np.random.Generator, demand: Demand) -> int:
    days = [draw_day(rng, demand, USUAL, shocks=False) for _ in range(5)]
    wished = [oracle_arms(demand, day.rows, np.inf)[2] for day in days]
    return round(BUDGET_SHARE * float(np.mean(wished)))


def _run(
    rng: np.random.Generator, demand: Demand, likely: Ints, amount: int, count: int, *, shocks: bool
) -> _Days:
    days = _Days({name: [] for name in NAMES})
    before = draw_day(rng, demand, USUAL, shocks=False)
    best = np.where(demand.allowed, demand.gain, 0.0).argmax(1)
    everyone = np.full(len(best), int(demand.true_gain[:, 1:].mean(0).argmax()) + 1)
    fixed = {
        "unpaced": best,
        "propensity": likely,
        "everyone": everyone,
        "nobody": np.zeros_like(best),
    }
    for _ in tqdm(range(count), desc="days", unit="day", disable=None):
        day = draw_day(rng, demand, USUAL, shocks=shocks)
        for name, arms in fixed.items():
            courses = days.courses[name]
            courses.append(run_day(rng, demand, day, amount, first_come(demand, arms)))
        paced = Paced(rng, demand, USUAL, before.rows, DEFAULT_HOLDOUT)
        days.courses["tillwise"].append(run_day(rng, demand, day, amount, paced))
        days.unpriced.append(_unpriced(rng.spawn(1)[0], demand, day))
        _oracle(days, demand, day, amount)
        before = day
    return days


def _unpriced(rng: np.random.Generator, demand: Demand, day: Day) -> int:
    """What our policy would spend on `day` if spending had no price and there were no budget, but
    for its holdout and its cap: no pace could have it spend more."""
    nobody_expected = Paced(rng, demand, 0.0, day.rows, DEFAULT_HOLDOUT)
    return run_day(rng, demand, day, _ENDLESS, nobody_expected).spent


def _oracle(days: _Days, demand: Demand, day: Day, amount: int) -> None:
    arms, _, wished = oracle_arms(demand, day.rows, amount)
    days.oracle_gained.append(float(demand.true_gain[day.rows, arms].sum()))
    days.oracle_wished.append(wished)


def _add(figures: Figures, title: str, days: _Days, amount: int) -> None:
    gained = np.array(days.oracle_gained)
    binding = np.array(days.oracle_wished) >= amount
    reachable = binding & (np.array(days.unpriced) >= NEAR * amount)
    figures.add(f"{title}/oracle", {"margin gained": gained.tolist(), "of oracle": [1.0]})
    for name, courses in days.courses.items():
        spent = np.array([course.spent for course in courses]) / amount
        left = np.array([course.left_at_last_hour for course in courses]) / amount
        near = binding & (spent >= NEAR) & (spent <= 1.0)
        figures.add(
            f"{title}/{name}",
            {
                "margin gained": [course.gained for course in courses],
                "of oracle": [sum(course.gained for course in courses) / float(gained.sum())],
                "spent of budget": spent.tolist(),
                "days over budget": [float(sum(c.largest > amount for c in courses))],
                "days exhausted early": [float((left < 0.005).sum())],
                "days oracle spends it": [float(binding.sum())],
                "of these within 2 %": [float(near.sum())],
                "days any pace could": [float(reachable.sum())],
                "of these near": [float((near & reachable).sum())],
                "floor broken": [float(sum(course.floor_broken for course in courses))],
            },
            peak_mib=peak_mib(),
        )


def _spend_plot(days: _Days, amount: int, title: str) -> Figure:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    hours = np.arange(1, 25)
    for name, colour in (("unpaced", "#E69F00"), ("tillwise", "#0072B2")):
        for place, course in enumerate(days.courses[name]):
            label = name if place == 0 else None
            spent = np.array(course.by_hour) / amount
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
