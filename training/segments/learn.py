"""From an imported folder to learned segments on disk: behaviour by the contract's functions, the
number of segments by its figures, names, and pictures."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from tqdm import tqdm

from contract.behaviour import BEHAVIOUR, LearnedSegments, behaviour, in_units, never_ordered
from contract.clock import from_us, to_us
from contract.errors import UserError
from contract.frames import EXPLODED_COLUMNS
from contract.manifest import LEARNED_SEGMENTS
from training.data.baskets import Timelines
from training.data.storage import SPLIT_FILE, make_folder, read_events
from training.segments import choice, plots
from training.segments.choice import MOST_SEGMENTS, Tried
from training.segments.clustering import Labels, Tree, Vectors, grown
from training.segments.naming import largest_first, named

FEWEST_SHOPPERS = 100
# Segments are of those who have never ordered as well, where so many of whom they were learned have
# not.
LEAST_BROWSERS = 0.01
SUMMARY, SCATTER, DENDROGRAM = "segments.json", "scatter", "dendrogram"


@dataclass(frozen=True, eq=False)
class Behaviours:
    """Everybody of whom something is remembered at `until`, and what they do."""

    subjects: list[str]  # [n]
    vectors: Vectors  # [n, B] contract.behaviour
    until: datetime
    synthetic: bool


@dataclass(frozen=True, eq=False)
class Learned:
    """Segments, whom they hold, and how they were chosen."""

    segments: LearnedSegments
    labels: Labels  # [n]
    standardised: Vectors  # [n, B]
    chosen: Tried
    tried: list[Tried]
    tree: Tree


def read_behaviours(folder: Path, until: datetime | None) -> Behaviours:
    """What the shoppers of `folder` had done by `until`: given, else the end of the training time
    that the import wrote down, else everything. UserError as `read_events` raises it."""
    events = read_events(folder, [*EXPLODED_COLUMNS, "synthetic"])
    end = until or _train_until(folder)
    last = pc.max(events["occurred_at"]).as_py()
    end_us = to_us(last) + 1 if end is None else to_us(end)
    timelines = Timelines.of(events)
    subjects, vectors = [], []
    for subject in tqdm(timelines.subjects, desc="behaviour", unit="shopper", disable=None):
        seen = timelines.view(subject, end_us, end_us)
        if seen.known:
            subjects.append(subject)
            vectors.append(behaviour(seen))
    return Behaviours(
        subjects,
        np.array(vectors).reshape(-1, len(BEHAVIOUR)),
        from_us(end_us),
        bool(pc.any(events["synthetic"]).as_py()),
    )


def _train_until(folder: Path) -> datetime | None:
    path = folder / SPLIT_FILE
    if not path.exists():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["train_until"]
        return datetime.fromisoformat(said).replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{SPLIT_FILE}: not readable ({error}); import again") from None


def learn(vectors: Vectors, seed: int, clusters: int | None = None) -> Learned:
    """Segments of `behaviour` vectors [n, B], as many as `clusters` says or the figures choose.

    UserError where there are too few shoppers, or all do the same.
    """
    most = MOST_SEGMENTS if clusters is None else clusters
    if len(vectors) < max(FEWEST_SHOPPERS, 10 * most):
        raise UserError(
            f"{len(vectors)} shoppers with behaviour; at least {max(FEWEST_SHOPPERS, 10 * most)} "
            "are needed to tell segments apart"
        )
    mean, scale = vectors.mean(0), vectors.std(0)
    scale[scale < 1e-9] = 0.0
    scaler = LearnedSegments((), mean, scale, np.empty((0, len(BEHAVIOUR))))
    standardised = scaler.standardised(vectors)
    if len(np.unique(standardised, axis=0)) < max(FEWEST_SHOPPERS // 2, 2 * most):
        raise UserError("too few shoppers differ in what they do; there are no segments to learn")
    tree = grown(standardised, seed)
    numbers = range(2, MOST_SEGMENTS + 1) if clusters is None else [clusters]
    found = choice.tried(standardised, tree, numbers, seed)
    best = choice.chosen(found) if clusters is None else found[0]
    order = largest_first(best.labels, best.k)
    centroids = best.centroids[order]
    segments = replace(
        scaler,
        names=named(centroids),
        centroids=centroids,
        of_browsers=bool(never_ordered(vectors).mean() >= LEAST_BROWSERS),
    )
    return Learned(segments, segments.nearest(vectors), standardised, best, found, tree)


def write(folder: Path, behaviours: Behaviours, learned: Learned, seed: int) -> None:
    """segments.npz (what an export takes), segments.json (the figures), scatter and dendrogram."""
    make_folder(folder)
    segments = learned.segments
    arrays: dict[str, Any] = segments.arrays()
    np.savez(folder / LEARNED_SEGMENTS, allow_pickle=False, **arrays)
    summary = json.dumps(_summary(behaviours, learned, seed), indent=1) + "\n"
    (folder / SUMMARY).write_text(summary, encoding="utf-8")
    scatter = plots.scatter(
        *(learned.standardised, learned.labels, segments.centroids, segments.names), seed
    )
    plots.saved(scatter, folder, SCATTER)
    plots.saved(plots.dendrogram(learned.tree, learned.chosen.k), folder, DENDROGRAM)


def _summary(behaviours: Behaviours, learned: Learned, seed: int) -> dict[str, Any]:
    segments, labels = learned.segments, learned.labels
    centres = in_units(segments.centroids * segments.scale + segments.mean)
    sizes = np.bincount(labels, minlength=len(segments.names)).tolist()
    return {
        "format": 1,
        "until": behaviours.until.isoformat(),
        "shoppers": len(labels),
        "synthetic": behaviours.synthetic,
        "seed": seed,
        "everybody": _told(in_units(segments.mean)),
        "without_spread": [
            name for name, spread in zip(BEHAVIOUR, segments.scale, strict=True) if spread == 0
        ],
        "segments": [
            {
                "number": place + 1,
                "name": name,
                "key": segments.keys[place],
                "shoppers": sizes[place],
                "share": sizes[place] / len(labels),
                "centre": _told(centres[place]),
                "standard_deviations": _told(segments.centroids[place]),
            }
            for place, name in enumerate(segments.names)
        ],
        "chosen": learned.chosen.k,
        "tried": [
            {
                "segments": one.k,
                "silhouette": one.silhouette,
                "stability": list(one.stability),
                "smallest": one.smallest,
                "agreement_with_hierarchical": one.hierarchical,
                "hierarchical_silhouette": one.hierarchical_silhouette,
            }
            for one in learned.tried
        ],
    }


def _told(figures: Vectors) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(BEHAVIOUR, figures, strict=True)}
