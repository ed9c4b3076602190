"""Holding items out of everything that is learned from, so that only their content is known."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from contract.events import key_of
from training.data.source import Source

SHARE = 10  # one item in so many is held out


def held_out(item_ids: Iterable[str]) -> frozenset[str]:
    """A tenth of `item_ids`, by their hash: nobody chooses, and every run holds out the same."""
    return frozenset(
        item_id
        for item_id in item_ids
        if hashlib.sha256(f"cold:{item_id}".encode()).digest()[0] * SHARE < 256
    )


def without(source: Source, cold: frozenset[str], until_us: int) -> Source:
    """`source` as if nobody had bought, viewed or been shown any item of `cold` before `until_us`;
    baskets from then on are whole, because they are what is asked about."""
    baskets = source.baskets
    gone = np.array([item_id in cold for item_id in baskets.item_ids])
    number = np.repeat(np.arange(len(baskets)), np.diff(baskets.offsets))
    kept = ~gone[baskets.item] | (baskets.occurred_us[number] >= until_us)
    sizes = np.bincount(number[kept], minlength=len(baskets))
    stripped = replace(
        baskets, item=baskets.item[kept], offsets=np.concatenate(([0], np.cumsum(sizes)))
    )
    keys = np.array([key_of(item_id) for item_id in cold], np.uint64)
    return replace(source, baskets=stripped, timelines=source.timelines.without(keys))
