"""The one encoder: what is known about a checkout, as arrays of fixed length. Training, replay and
serving call this and nothing else, so an input can not mean one thing here and another there."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from contract import segments
from contract.compiled import INT, INTS, KEY, KEYS, KEYS_2D, compiled, records
from contract.events import EVENT_TYPE, EventContext, key_of
from contract.features import PURCHASED, SubjectView
from contract.pieces import SIZE, between_pieces, in_pieces
from contract.ranks import highest
from contract.rows import INTERACTION
from contract.segment_config import DEFAULT, SegmentConfig
from contract.text import token_numbers

PAD = 0
OOV = 1
FIRST_ITEM = 2

ENCODER_VERSION = 2
LENGTH = 50  # L: latest interactions and the cart, for the sequence encoder
FREQUENT = 48  # F: the subject's strongest items, for the query tower
CART = 32  # C: the latest cart lines
TOKENS = 16  # T: search words
CONTEXT_SIZES: dict[str, int] = {"device": 5, "country": 64, "region": 64, "hour": 25, "weekday": 8}
NUM_EVENT_TYPES = len(EVENT_TYPE) + 1
NUM_GAPS = 24  # log2 buckets of minutes, 0 for padding

Encoded = dict[str, npt.NDArray[np.generic]]

# Tensor name -> (shape without the batch, dtype), for each model that reads the encoding.
QUERY_TOWER_INPUTS: dict[str, tuple[tuple[int, ...], str]] = {
    "frequent_items": ((FREQUENT,), "int64"),
    "frequent_weights": ((FREQUENT,), "float32"),
    "cart_items": ((CART,), "int64"),
    "context": ((len(CONTEXT_SIZES),), "int64"),
    "segments": ((segments.NUM_SEGMENTS,), "float32"),
    "recency": ((4,), "float32"),
    "search_tokens": ((TOKENS,), "int64"),
}
SEQUENCE_INPUTS: dict[str, tuple[tuple[int, ...], str]] = {
    "sequence_items": ((LENGTH,), "int64"),
    "sequence_types": ((LENGTH,), "int64"),
    "sequence_gaps": ((LENGTH,), "int64"),
}

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """Item ids and their indices: PAD = 0, OOV = 1, items from 2 in the order of `item_ids`."""

    item_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.item_ids)) != len(self.item_ids):
            raise ValueError("item ids in a vocabulary must be distinct")

    def __len__(self) -> int:
        """The number of indices, PAD and OOV included."""
        return len(self.item_ids) + FIRST_ITEM

    @cached_property
    def hash(self) -> str:
        """A digest of the ids in their order."""
        digest = hashlib.sha256()
        for start in range(0, len(self.item_ids), SIZE):
            ids = self.item_ids[start : start + SIZE]
            digest.update("".join([f"{len(one)}:{one}" for one in ids]).encode())
            between_pieces()
        return digest.hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        ids = enumerate(in_pieces(self.item_ids), start=FIRST_ITEM)
        return {item_id: place for place, item_id in ids}

    @cached_property
    def by_key(self) -> tuple[npt.NDArray[np.uint64], Indices]:
        """Feature-state item keys in ascending order, and the index of each."""
        keys = np.array([key_of(item_id) for item_id in in_pieces(self.item_ids)], np.uint64)
        order = np.argsort(keys)
        return keys[order], order.astype(np.int64) + FIRST_ITEM

    @cached_property
    def key_table(self) -> npt.NDArray[np.uint64]:
        """The `table_of` all items."""
        table: npt.NDArray[np.uint64] = table_of(*self.by_key)
        return table

    def index(self, item_id: str) -> int:
        """The index of `item_id`, OOV when it is not known."""
        return self._index.get(item_id, OOV)

    def indices(self, item_ids: Iterable[str]) -> Indices:
        """The indices of many ids."""
        index = self._index
        return np.array([index.get(item_id, OOV) for item_id in item_ids], np.int64)

    def of_keys(self, keys: npt.NDArray[np.uint64]) -> Indices:
        """The indices of feature-state item keys, [len(keys)]; OOV where not known."""
        known, index = self.by_key
        if not len(known):
            return np.full(len(keys), OOV, np.int64)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[place] == keys, index[place], OOV)

    def item_id(self, index: int) -> str:
        """The id at `index`; PAD and OOV have none (IndexError)."""
        if index < FIRST_ITEM:
            raise IndexError(f"index {index} is reserved")
        return self.item_ids[index - FIRST_ITEM]

    def ids(self, indices: Indices) -> tuple[str, ...]:
        """The ids of many indices, none of them PAD or OOV (IndexError)."""
        if len(indices) and indices.min() < FIRST_ITEM:
            raise IndexError(f"index {indices.min()} is reserved")
        item_ids = self.item_ids
        return tuple([item_ids[index] for index in (indices - FIRST_ITEM).tolist()])


@dataclass(frozen=True)
class Situation:
    """What one checkout brings along: everything the encoder may look at, and nothing else."""

    view: SubjectView
    cart: Sequence[str]  # item ids in the order in which they were put in
    now_us: int
    context: EventContext | None = None
    recent_items: Sequence[str] = ()  # looked at on this page, oldest first
    search_terms: Sequence[str] = ()
    personal: bool = True  # whether they agreed to be told apart from others
    rules: SegmentConfig = DEFAULT  # of the release, or of the run

    @cached_property
    def local(self) -> datetime | None:
        """The shopper's local time, None where it is not known."""
        return segments.local_time(self.now_us, self.context)

    @cached_property
    def segments(self) -> segments.Membership:
        """Membership in each of `rules.names`."""
        return segments.assign(self.view, self.context, self.local, self.rules)


def encode(situation: Situation, vocabulary: Vocabulary) -> Encoded:
    """All tensors of `QUERY_TOWER_INPUTS` and `SEQUENCE_INPUTS`, without a batch dimension."""
    view, context = situation.view, situation.context
    local = situation.local
    cart = vocabulary.indices(situation.cart)
    encoded: Encoded = {
        "cart_items": _right_padded(cart[-CART:], CART),
        "context": _context(
            context, local.hour if local else None, local.weekday() if local else None
        ),
        "segments": segments.padded(situation.segments),
        "recency": np.log1p(np.maximum(view.rhythm, 0.0)).astype(np.float32),
        "search_tokens": _search_tokens(situation),
    }
    return encoded | _history(situation, cart, vocabulary)


def stack(encoded: Sequence[Encoded]) -> Encoded:
    """Many encodings as one batch: every tensor gains a leading dimension."""
    # Not np.stack, which takes longer to begin than these arrays take to copy.
    return {name: np.array([one[name] for one in encoded]) for name in encoded[0]}


def _right_padded(indices: Indices, length: int) -> Indices:
    padded = np.full(length, PAD, np.int64)
    padded[: len(indices)] = indices
    return padded


def _context(context: EventContext | None, hour: int | None, weekday: int | None) -> Indices:
    devices = (None, "desktop", "mobile", "tablet", "other")
    device = devices.index(context.device) if context else 0
    country = _bucket(context.country if context else None, CONTEXT_SIZES["country"])
    region = _bucket(context.region if context else None, CONTEXT_SIZES["region"])
    return np.array(
        [
            device,
            country,
            region,
            0 if hour is None else 1 + hour,
            0 if weekday is None else 1 + weekday,
        ],
        np.int64,
    )


@lru_cache(maxsize=1_024)
def _bucket(word: str | None, size: int) -> int:
    return 0 if word is None else 1 + key_of(word) % (size - 1)


def _search_tokens(situation: Situation) -> Indices:
    """The words of this page's searches first, then those of the latest remembered one."""
    tokens = [t for term in situation.search_terms for t in token_numbers(term, TOKENS)]
    if not tokens and len(situation.view.searches):
        tokens = [int(t) for t in situation.view.searches["tokens"][-1] if t]
    return _right_padded(np.array(tokens[:TOKENS], np.int64), TOKENS)


def _history(situation: Situation, cart: Indices, vocabulary: Vocabulary) -> Encoded:
    """What was bought most, and the latest interactions."""
    view, looked_at = situation.view, vocabulary.indices(situation.recent_items)
    items, weights, sequence = _of_history(
        *(
            vocabulary.key_table,
            view.purchased,
            view.interactions,
            looked_at,
            cart,
        ),
        *(EVENT_TYPE["view_item"], EVENT_TYPE["add_to_cart"], situation.now_us),
    )
    frequent = {"frequent_items": items, "frequent_weights": weights}
    return frequent | dict(zip(SEQUENCE_INPUTS, sequence, strict=True))


@compiled(KEYS, INTS)
def table_of(keys: npt.NDArray[np.uint64], index: Indices) -> npt.NDArray[np.uint64]:
    """Keys and indices, FIRST_ITEM and more, by the last bits of the key, with room for twice as
    many, a power of two, [room, 2]; index 0 where it is free. What is looked for stands there or
    behind."""
    room = 16
    while room < 2 * len(keys):
        room *= 2
    table = np.zeros((room, 2), np.uint64)
    for place in range(len(keys)):
        slot = np.int64(keys[place] & np.uint64(room - 1))
        while table[slot, 1] != 0:
            slot = (slot + 1) & (room - 1)
        table[slot, 0], table[slot, 1] = keys[place], np.uint64(index[place])
    return table


@compiled(KEYS_2D, KEY)
def index_of_key(table: npt.NDArray[np.uint64], key: Any) -> int:
    """The index of `key` in a `table_of` keys, OOV where it is not known."""
    slot = np.int64(key & np.uint64(len(table) - 1))
    while table[slot, 1] != 0:
        if table[slot, 0] == key:
            return int(np.int64(table[slot, 1]))
        slot = (slot + 1) & (len(table) - 1)
    return OOV


@compiled(INT)
def _gap_bucket(gap_us: int) -> int:
    """In whole numbers: bucket b begins at 2 ** (b - 1) - 1 minutes."""
    bucket = 1
    while bucket < NUM_GAPS - 1 and gap_us >= ((1 << bucket) - 1) * 60_000_000:
        bucket += 1
    return bucket


@compiled(
    *(KEYS_2D, records(PURCHASED), records(INTERACTION.dtype), INTS, INTS),
    *(INT, INT, INT),
)
def _of_history(
    table: npt.NDArray[np.uint64],
    purchased: Any,
    interactions: Any,
    looked_at: Indices,
    cart: Indices,
    viewed: int,
    added: int,
    now_us: int,
) -> tuple[Any, Any, Any]:
    """The items bought most, by recency-weighted frequency, [FREQUENT], and their weights, which
    sum to one. Then `SEQUENCE_INPUTS`, [3, LENGTH]: latest interactions, what was looked at here,
    the cart; padded on the left, so that the last position is always the latest. A gap is the time
    since the interaction before."""
    weight = np.empty(len(purchased), np.float32)
    for row in range(len(purchased)):
        weight[row] = purchased[row].weight_60d
    order = highest(weight, FREQUENT)
    items, weights = np.zeros(FREQUENT, np.int64), np.zeros(FREQUENT, np.float32)
    total = np.float32(weight[order].astype(np.float64).sum())
    for place in range(len(order)):
        items[place] = index_of_key(table, purchased[order[place]].item_key)
        if total > 0:
            weights[place] = weight[order[place]] / total
    sequence = np.zeros((3, LENGTH), np.int64)
    remembered, beside = len(interactions), len(looked_at)
    count = remembered + beside + len(cart)
    first, before_us = max(count - LENGTH, 0), 0
    for place in range(first, count):
        at, at_us = LENGTH - count + place, now_us
        if place < remembered:
            row = interactions[place]
            sequence[0, at] = index_of_key(table, row.item_key)
            at_us = row.occurred_us
            sequence[1, at] = row.event_type
        elif place < remembered + beside:
            sequence[0, at], sequence[1, at] = looked_at[place - remembered], viewed
        else:
            sequence[0, at], sequence[1, at] = cart[place - remembered - beside], added
        sequence[2, at] = _gap_bucket(at_us - before_us if place > first else 0)
        before_us = at_us
    return items, weights, sequence


@compiled(INTS)
def gap_buckets(gap_us: npt.NDArray[np.int64]) -> Indices:
    """Bucket 1 + floor(log2(1 + minutes)), at most NUM_GAPS - 1, of each gap."""
    buckets = np.empty(len(gap_us), np.int64)
    for place in range(len(gap_us)):
        buckets[place] = _gap_bucket(gap_us[place])
    return buckets
