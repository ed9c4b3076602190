"""Pictures of fairness as inline SVG: groups with intervals, weeks, and what evenness costs."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from contract.fairness import Comparison, FairnessReport
from training.evaluation.fairness_offers import Priced

_GREY, _COLOURS = "#888888", ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def group_plot(one: Comparison, least_ratio: float) -> str:
    """Each group's mean with its 95 % interval; the line is what the lowest must reach."""
    figure = Figure(figsize=(6.4, 0.9 + 0.36 * len(one.groups)), layout="constrained")
    axes = figure.add_subplot()
    best = max(group.value for group in one.groups)
    for place, group in enumerate(one.groups):
        reach = [[group.value - group.low], [group.high - group.value]]
        axes.errorbar(group.value, place, xerr=reach, fmt="o", color=_COLOURS[0], capsize=3)
    axes.axvline(least_ratio * best, color=_COLOURS[5], linestyle="--", linewidth=1)
    axes.set_yticks(range(len(one.groups)), [group.group for group in one.groups])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, f"{one.attribute}-{one.measure}")


def weekly_plot(weeks: Sequence[tuple[str, FairnessReport]], least_ratio: float) -> str:
    """The ratio of the lowest to the highest group, week by week, one line an attribute."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[tuple[int, float]]] = {}
    for place, (_, report) in enumerate(weeks):
        for one in report.comparisons:
            if one.judged:
                lines.setdefault(one.attribute, []).append((place, one.ratio))
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        at, ratios = zip(*points, strict=True)
        axes.plot(at, ratios, "o-", color=colour, label=name, linewidth=1.4)
    axes.axhline(least_ratio, color=_COLOURS[5], linestyle="--", linewidth=1, label="limit")
    axes.set_xticks(range(len(weeks)), [week for week, _ in weeks], rotation=30, ha="right")
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("lowest over highest group")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, "weeks")


def price_plot(rows: Sequence[Priced]) -> str:
    """Evenness against what a decision brings, one line an attribute."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    ratios: Mapping[str, float] = rows[0].ratios
    for name, colour in zip(ratios, _COLOURS, strict=False):
        told = [row for row in rows if name in row.ratios]
        for row in told:
            axes.annotate(
                row.name, (row.ratios[name], row.margin), fontsize=6, color=_GREY, rotation=15
            )
        axes.plot([r.ratios[name] for r in told], [r.margin for r in told], "o", color=colour)
        axes.plot([], [], "o", color=colour, label=name)
    axes.set_xlabel("offer rate of the lowest over the highest group")
    axes.set_ylabel("margin over no offer, a decision")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, "price")


def _svg(figure: Figure, salt: str) -> str:
    content = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    return text[text.index("<svg") :]
