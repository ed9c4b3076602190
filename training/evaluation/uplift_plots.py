"""Pictures of uplift: does it come as predicted, and how much of it the best share holds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.data.offer_log import Floats
from training.segments.plots import saved

_GREY = "#888888"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#444444")


def calibration_plot(parts: Mapping[str, tuple[Floats, Floats, Floats]], title: str) -> Figure:
    """For each arm: predicted against observed effect of ten equal parts, with 95 % intervals."""
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot()
    for (arm, (told, seen, error)), colour in zip(parts.items(), _COLOURS, strict=False):
        axes.errorbar(told, seen, 1.96 * error, fmt="o", color=colour, capsize=2, label=arm)
    every = np.concatenate([np.concatenate(part[:2]) for part in parts.values()])
    ends = [float(np.nanmin(every)), float(np.nanmax(every))]
    axes.plot(ends, ends, color=_GREY, linestyle="--", linewidth=1, label="as predicted")
    axes.set_xlabel("predicted effect on the outcome")
    axes.set_ylabel("observed difference to no offer")
    axes.set_title(title)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def gain_plot(curves: Mapping[str, tuple[Floats, Floats]], title: str) -> Figure:
    """Gain per person by the share that is targeted, one line a model, against chance."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    for (name, (share, gain)), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot(share, gain, color=colour, label=name, linewidth=1.4)
    end = next(iter(curves.values()))[1][-1]
    axes.plot([0, 1], [0, float(end)], color=_GREY, linestyle="--", linewidth=1, label="chance")
    axes.set_xlabel("share of people targeted, best first")
    axes.set_ylabel("gain of the outcome per person")
    axes.set_title(title)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write(figure: Figure, folder: Path, name: str) -> list[Path]:
    """`name`.png and .svg in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return saved(figure, folder, name)
