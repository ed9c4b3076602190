"""The pictures of a clustering: a scatter plot over two principal components, and a dendrogram.
Drawn without a screen, as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from contract.behaviour import BEHAVIOUR
from training.segments.clustering import Labels, Tree, Vectors

FORMATS = ("png", "svg")
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#444444")
_MOST_POINTS, _LEAVES_SHOWN = 5_000, 40
_GREY = "#888888"


def principal(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Two principal components of standardised `vectors` as directions [2, B], each with its
    largest weight positive, and their shares of the variance [2]."""
    centred = vectors - vectors.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    strongest = two[np.arange(2), np.abs(two).argmax(1)]
    return two * np.sign(strongest)[:, None], singular[:2] ** 2 / (singular**2).sum()


def scatter(
    vectors: Vectors, labels: Labels, centroids: Vectors, names: Sequence[str], seed: int
) -> Figure:
    """Everybody (of many, a sample) over the two directions in which behaviour varies most."""
    directions, share = principal(vectors)
    mean = vectors.mean(0)
    shown = np.arange(len(vectors))
    if len(vectors) > _MOST_POINTS:
        shown = np.random.default_rng(seed).choice(len(vectors), _MOST_POINTS, replace=False)
    points, centres = (vectors - mean) @ directions.T, (centroids - mean) @ directions.T
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.add_subplot()
    sizes = np.bincount(labels, minlength=len(names))
    for cluster, name in enumerate(names):
        own = shown[labels[shown] == cluster]
        colour = _COLOURS[cluster % len(_COLOURS)]
        told = f"{cluster + 1}  {name}: {sizes[cluster]:,} ({sizes[cluster] / len(labels):.0%})"
        axes.scatter(
            points[own, 0], points[own, 1], s=9, alpha=0.5, linewidths=0, color=colour, label=told
        )
    for cluster, centre in enumerate(centres):
        axes.annotate(
            str(cluster + 1),
            centre,
            ha="center",
            va="center",
            weight="bold",
            bbox={"boxstyle": "circle", "fc": "white", "ec": _COLOURS[cluster % len(_COLOURS)]},
        )
    across, up = (
        f"{_direction(weights)} ({of_all:.0%} of the variance)"
        for weights, of_all in zip(directions, share, strict=True)
    )
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.set_title(f"{len(labels):,} shoppers in {len(names)} learned segments")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, markerscale=2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _direction(weights: Vectors) -> str:
    """The three figures that a component is made of most."""
    most = np.argsort(-np.abs(weights), kind="stable")[:3]
    return ", ".join(
        f"{'+' if weights[one] > 0 else chr(0x2212)} {BEHAVIOUR[one].replace('_', ' ')}"
        for one in most.tolist()
    )


def dendrogram(tree: Tree, k: int) -> Figure:
    """The upper branches of the tree, and where it is cut into k."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    height = tree.height(k)
    hierarchy.set_link_color_palette(list(_COLOURS))
    hierarchy.dendrogram(
        tree.linkage,
        p=_LEAVES_SHOWN,
        truncate_mode="lastp",
        color_threshold=height,
        above_threshold_color=_GREY,
        no_labels=False,
        leaf_font_size=7,
        ax=axes,
    )
    axes.axhline(height, color=_GREY, linestyle="--", linewidth=1)
    axes.annotate(
        f"cut into {k}", (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom"
    )
    axes.set_ylabel("distance (Ward)")
    few = len(tree.leaves) == len(tree.leaf_of)
    of = "shoppers" if few else f"micro-clusters of {len(tree.leaf_of):,} shoppers"
    axes.set_title(f"Hierarchical clustering of {len(tree.leaves):,} {of}")
    axes.set_xlabel(
        "(leaves below a branch), or the leaf's number; colours are the tree's clusters"
    )
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def saved(figure: Figure, folder: Path, name: str) -> list[Path]:
    """`name`.png and .svg; the same figure gives the same bytes."""
    paths = []
    for form in FORMATS:
        metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            figure.savefig(folder / f"{name}.{form}", dpi=130, metadata=metadata)
        paths.append(folder / f"{name}.{form}")
    return paths
