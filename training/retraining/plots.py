"""The pictures of a retraining's report, as SVG that stands inside the page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_GREY, _CHAMPION, _CHALLENGER, _BAD = "#8a8f98", "#6b7280", "#0072B2", "#B3261E"
_MOST_SLICES = 24


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element; the same figure gives the same text."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 10}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def differences(rows: Mapping[str, Mapping[str, Any]], loss: float, least: int) -> Figure:
    """How each slice changed, relative to the champion, with its interval. Slices of fewer than
    `least` questions are dotted and grey, as nobody judges them; what lies beyond the picture ends
    in an arrow."""
    shown = sorted(rows.items(), key=lambda row: -row[1]["questions"])[:_MOST_SLICES]
    figure = Figure(figsize=(8.4, 0.9 + 0.27 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    ends = [
        abs(100 * row[k] / (row["champion"] or 1.0)) for _, row in shown for k in ("low", "high")
    ]
    reach = min(max(12.0, float(np.quantile(ends, 0.85)) * 1.2), 120.0)
    for place, (_, row) in enumerate(reversed(shown)):
        base = row["champion"] or 1.0
        middle = 100 * (row["challenger"] - row["champion"]) / base
        low, high = 100 * row["low"] / base, 100 * row["high"] / base
        enough = row["questions"] >= least
        colour = _GREY if not enough else _BAD if high < 0 else _CHALLENGER if low > 0 else _GREY
        axes.plot([low, high], [place, place], color=colour, linewidth=2, ls="-" if enough else ":")
        axes.plot(middle, place, "o", color=colour, markersize=5, mfc=None if enough else "white")
        for beyond, edge, arrow in ((low < -reach, -reach, "<"), (high > reach, reach, ">")):
            if beyond:
                axes.plot(edge, place, arrow, color=colour, markersize=7, clip_on=False)
    axes.axvline(0, color="#111827", linewidth=0.8)
    axes.axvline(-100 * loss, color=_BAD, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(shown)), [name for name, _ in reversed(shown)])
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("change of NDCG@5 or recall, % (dashed: the most that may be lost)")
    return _plain(figure)


def reliability(sides: Sequence[Mapping[str, Sequence[float]]]) -> Figure:
    """What the ranker promised and what came, by bin."""
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for name, side, colour in zip(
        ("champion", "challenger"), sides, (_CHAMPION, _CHALLENGER), strict=True
    ):
        promised, came, held = (np.array(side[k]) for k in ("promised", "came", "held"))
        there = held > 0
        told, seen = promised[there] / held[there], came[there] / held[there]
        axes.plot(told, seen, "o-", color=colour, label=name, markersize=5)
    axes.plot([1e-4, 1], [1e-4, 1], "--", color=_GREY, linewidth=1, label="as promised")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_xlabel("probability that the ranker gave an item")
    axes.set_ylabel("share of purchases that it got")
    axes.legend(frameon=False)
    return _plain(figure)


def days(before: Sequence[int], fresh: Sequence[int]) -> Figure:
    """Purchases a day, the window marked."""
    figure = Figure(figsize=(8.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(-len(before), 0), before, color=_GREY, width=0.8, label="weeks before")
    axes.bar(range(len(fresh)), fresh, color=_CHALLENGER, width=0.8, label="fresh window")
    axes.set_xlabel("day (0: the window begins)")
    axes.set_ylabel("purchases")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return _plain(figure)


def fold_bars(folds: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """NDCG@5 of every fold."""
    rows = [*folds["by_shopper"], *folds["by_time"]]
    figure = Figure(figsize=(6.4, 0.8 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows) - 1, -1, -1)
    colours = [_CHALLENGER] * len(folds["by_shopper"]) + [_CHAMPION] * len(folds["by_time"])
    axes.barh(places, [row["NDCG@5"] for row in rows], color=colours, height=0.6)
    axes.set_yticks(places, [str(row["name"]) for row in rows])
    axes.set_xlabel("NDCG@5")
    return _plain(figure)


def _plain(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=3)
    return figure
