"""The one encoder: what is known about a checkout, as arrays of fixed length. Training, replay and
serving call this and nothing else, so an input can not mean one thing here and another there."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from contract import segments
from contract.clock import MICROSECONDS
from contract.events import EVENT_TYPE, EventContext, key_of
from contract.features import SubjectView
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
        for item_id in self.item_ids:
            digest.update(f"{len(item_id)}:{item_id}".encode())
        return digest.hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item_id: place for place, item_id in enumerate(self.item_ids, start=FIRST_ITEM)}

    @cached_property
    def by_key(self) -> tuple[npt.NDArray[np.uint64], Indices]:
        """Feature-state item keys in ascending order, and the index of each."""
        keys = np.array([key_of(item_id) for item_id in self.item_ids], np.uint64)
        order = np.argsort(keys)
        return keys[order], order.astype(np.int64) + FIRST_ITEM

    def index(self, item_id: str) -> int:
        """The index of `item_id`, OOV when it is not known."""
        return self._index.get(item_id, OOV)

    def indices(self, item_ids: Iterable[str]) -> Indices:
        """The indices of many ids."""
        return np.array([self._index.get(item_id, OOV) for item_id in item_ids], np.int64)

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
    encoded |= _frequent(view, vocabulary)
    encoded |= _sequence(situation, cart, vocabulary)
    return encoded


def stack(encoded: Sequence[Encoded]) -> Encoded:
    """Many encodings as one batch: every tensor gains a leading dimension."""
    return {name: np.stack([one[name] for one in encoded]) for name in encoded[0]}


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


def _bucket(word: str | None, size: int) -> int:
    return 0 if word is None else 1 + key_of(word) % (size - 1)


def _search_tokens(situation: Situation) -> Indices:
    """The words of this page's searches first, then those of the latest remembered one."""
    tokens = [t for term in situation.search_terms for t in token_numbers(term, TOKENS)]
    if not tokens and len(situation.view.searches):
        tokens = [int(t) for t in situation.view.searches["tokens"][-1] if t]
    return _right_padded(np.array(tokens[:TOKENS], np.int64), TOKENS)


def _frequent(view: SubjectView, vocabulary: Vocabulary) -> Encoded:
    """The items bought most, by recency-weighted frequency; weights sum to one."""
    purchased = view.purchased
    weight = purchased["weight_60d"]
    if len(purchased) > FREQUENT:
        order = np.argsort(-weight, kind="stable")[:FREQUENT]
    else:
        order = np.argsort(-weight, kind="stable")
    items = vocabulary.of_keys(purchased["item_key"][order])
    weights = np.zeros(FREQUENT, np.float32)
    total = float(weight[order].sum())
    if total > 0:
        weights[: len(order)] = weight[order] / total
    return {"frequent_items": _right_padded(items, FREQUENT), "frequent_weights": weights}


def _sequence(situation: Situation, cart: Indices, vocabulary: Vocabulary) -> Encoded:
    """Latest interactions, then what was looked at here, then the cart; padded on the left, so
    that the last position is always the latest. A gap is the time since the interaction before."""
    rows = situation.view.interactions[-LENGTH:]
    looked_at = vocabulary.indices(situation.recent_items)
    now = np.full(len(looked_at) + len(cart), situation.now_us, np.int64)
    items = np.concatenate((vocabulary.of_keys(rows["item_key"]), looked_at, cart))[-LENGTH:]
    types = np.concatenate(
        (
            rows["event_type"].astype(np.int64),
            np.full(len(looked_at), EVENT_TYPE["view_item"], np.int64),
            np.full(len(cart), EVENT_TYPE["add_to_cart"], np.int64),
        )
    )[-LENGTH:]
    times = np.concatenate((rows["occurred_us"], now))[-LENGTH:]
    gaps = gap_buckets(np.diff(times, prepend=times[:1]))
    start = LENGTH - len(items)
    encoded = {name: np.zeros(LENGTH, np.int64) for name in SEQUENCE_INPUTS}
    encoded["sequence_items"][start:] = items
    encoded["sequence_types"][start:] = types
    encoded["sequence_gaps"][start:] = gaps
    return dict(encoded)


def gap_buckets(gap_us: npt.NDArray[np.int64]) -> Indices:
    """Bucket 1 + floor(log2(1 + minutes)), at most NUM_GAPS - 1, of each gap."""
    minutes = np.maximum(gap_us, 0) / (60 * MICROSECONDS)
    return np.minimum(1 + np.log2(1.0 + minutes).astype(np.int64), NUM_GAPS - 1)
