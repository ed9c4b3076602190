"""What the benchmarks of exploration and of feedback do alike with a simulated shop: write its log,
fit a small recommender on it, and ask that for lists."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.exploration_world import (
    START,
    Floats,
    Shop,
    Visit,
    as_table,
    item_id,
    item_of,
    subject_id,
)
from contract.clock import to_us
from contract.encoding import Situation
from contract.events import EventContext
from training.data.baskets import Timelines
from training.data.source import Source, read_source
from training.data.storage import events_writer, write_catalogue
from training.fit import Fit
from training.recipes import Recipe, recipe
from training.recommender import Recommender

SHOWN: Final = 5

_SMALL: Final = (
    *("dimension=16", "negatives=64", "tower_examples=2000", "tower_epochs=3"),
    *("ranker_days=28", "ranker_windows=1", "ranker_examples=2000", "ranker_epochs=8"),
    *("ranker_hidden=32", "validation_examples=300"),
)
Events = list[dict[str, Any]]


def ranked(
    model: Recommender, timelines: Timelines, visits: Sequence[Visit], length: int
) -> list[tuple[Visit, list[int], Floats]]:
    """The best items of each visit that are not in its cart, with their scores."""
    asked = []
    for visit in visits:
        now_us = to_us(visit.at)
        view = timelines.view(subject_id(visit.shopper), now_us, now_us)
        context = EventContext(device="mobile", country="US", timezone="UTC")
        asked.append(Situation(view, [item_id(one) for one in visit.cart], now_us, context))
    found = []
    _, answers = model.scored(asked, label="lists")
    for visit, (index, scores) in zip(visits, answers, strict=True):
        order = np.argsort(-scores, kind="stable")[:length]
        items = [item_of(model.vocabulary.item_id(int(one))) for one in index[order]]
        found.append((visit, items, scores[order].astype(np.float64)))
    return found


def written(folder: Path, shop: Shop, events: Events) -> Path:
    """`folder` with these events and the shop's catalogue in it."""
    with events_writer(folder) as writer:
        writer.write(as_table(events))
    write_catalogue(shop.catalogue(), folder)
    return folder


def source_of(folder: Path, weeks: int, *, drawn: bool = False) -> Source:
    """The log in `folder`, to be learned from for so many weeks, chosen on the last of them."""
    until = START + timedelta(days=7 * weeks)
    days = {
        "validate_from": until - timedelta(days=7),
        "train_until": until,
        "test_until": until + timedelta(days=7),
    }
    told: dict[str, str | None] = {name: f"{day:%Y-%m-%d}" for name, day in days.items()}
    return read_source(folder, told, drawn=drawn)


def fitted(folder: Path, weeks: int, chosen: Recipe, *, alike: bool = False) -> Recommender:
    """A recommender of the first weeks in `folder`. `alike`: every drawn place counts as if it had
    been as likely as any other."""
    source = source_of(folder, weeks, drawn=chosen.explored_weight > 0)
    if alike and source.drawn is not None:
        even = np.full(len(source.drawn), 1.0) / source.drawn.pool
        source = replace(source, drawn=replace(source.drawn, propensity=even))
    return Fit(source, chosen, device=torch.device("cpu")).run()


def recipe_of(seed: int, *settings: str) -> Recipe:
    """The demo recipe, small enough for a shop of this size, with `settings`."""
    return recipe("demo", [*_SMALL, f"seed={seed}", *settings])
