"""Sequences as flat arrays, and the questions and batches that are made of them.

Shapes: S sequences, E interactions, B batch, L length (left-padded).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from contract.encoding import FIRST_ITEM, PAD, Vocabulary
from contract.errors import UserError
from contract.events import EVENT_TYPE
from training.models.next_item import SequenceBatch

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.int16]
_VIEW = EVENT_TYPE["view_item"]
_POOL = 32  # batches that are sorted by length together: little padding, still a random order


@dataclass(frozen=True)
class Sequences:
    """Many sequences, oldest item first; `item` holds vocabulary indices."""

    item: Ints  # [E]
    offsets: Ints  # [S + 1]
    event_type: Ints | None = None  # [E] contract.events.EVENT_TYPE; None: all of them views
    gap: Ints | None = None  # [E] contract.encoding.gap_buckets of the time since the one before
    # [E, W] contract.text token numbers of what was searched for after it, before the next one
    words: Tokens | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """How many items each sequence has, [S]."""
        return np.diff(self.offsets)

    def where(self, kept: Ints) -> "Sequences":
        """The sequences numbered `kept`, in that order."""
        return self._spans(self.offsets[kept], self.offsets[kept + 1])

    def without_last(self, count: int) -> "Sequences":
        """Every sequence without its last `count` items; those that would be empty are empty."""
        return self._spans(
            self.offsets[:-1], np.maximum(self.offsets[:-1], self.offsets[1:] - count)
        )

    def last(self, back: int = 0) -> Ints:
        """The item `back` places before the last of every sequence, [S]; PAD for none."""
        at = self.offsets[1:] - 1 - back
        there = at >= self.offsets[:-1]
        return np.where(there, self.item[np.maximum(at, 0)], PAD)

    def _spans(self, start: Ints, end: Ints) -> "Sequences":
        sizes = end - start
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        rows = np.repeat(start - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Sequences(
            self.item[rows],
            offsets,
            None if self.event_type is None else self.event_type[rows],
            None if self.gap is None else self.gap[rows],
            None if self.words is None else self.words[rows],
        )


def sequences_of(items: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Sequences:
    """Lists of item ids as `Sequences`; items that the vocabulary lacks become OOV."""
    lengths = np.fromiter((len(row) for row in items), np.int64, len(items))
    return Sequences(
        vocabulary.indices(chain.from_iterable(items)), np.concatenate(([0], np.cumsum(lengths)))
    )


def vocabulary_of(items: Sequence[Sequence[str]]) -> Vocabulary:
    """Every item that occurs, most frequent first, equally frequent ones by id."""
    counts: dict[str, int] = {}
    for item_id in chain.from_iterable(items):
        counts[item_id] = counts.get(item_id, 0) + 1
    if not counts:
        raise UserError("the sequences hold no items")
    return Vocabulary(tuple(sorted(counts, key=lambda item_id: (-counts[item_id], item_id))))


@dataclass(frozen=True)
class Questions:
    """What is asked of a model: after this history, which item?"""

    history: Sequences
    target: Ints  # [S]

    def __post_init__(self) -> None:
        if len(self.history) != len(self.target):
            raise ValueError("every history has one target")

    def __len__(self) -> int:
        return len(self.target)

    def where(self, kept: Ints) -> "Questions":
        """The questions numbered `kept`."""
        return Questions(self.history.where(kept), self.target[kept])


def every_prefix(sequences: Sequences) -> Questions:
    """A question at every position but the first."""
    sizes = np.maximum(sequences.lengths - 1, 0)
    sequence = np.repeat(np.arange(len(sequences)), sizes)
    first = np.cumsum(sizes) - sizes
    known = np.arange(len(sequence)) - first[sequence] + 1
    start = sequences.offsets[sequence]
    histories = sequences._spans(start, start + known)
    return Questions(histories, sequences.item[start + known])


def batch_of(sequences: Sequences, rows: Ints, length: int, *, learning: bool) -> SequenceBatch:
    """The sequences `rows` as tensors, no longer than the longest of them or `length` latest items.

    `learning`: the last item is only a target, the others are asked after; otherwise the whole
    sequence is the input and there are no targets.
    """
    start, end = sequences.offsets[rows], sequences.offsets[rows + 1] - int(learning)
    widest = max(1, min(length, int((end - start).max(initial=0))))
    at = end[:, None] - np.arange(widest, 0, -1)[None]
    there = at >= start[:, None]
    at = np.where(there, at, 0)
    item = np.where(there, sequences.item[at], PAD)
    types = np.full_like(item, _VIEW) if sequences.event_type is None else sequences.event_type[at]
    gaps = np.ones_like(item) if sequences.gap is None else sequences.gap[at]
    targets = np.zeros_like(item)
    if learning:
        following = sequences.item[np.where(there, at + 1, 0)]
        targets = np.where(there & (following >= FIRST_ITEM), following, PAD)
    parts = [item, np.where(there, types, 0), np.where(there, gaps, 0), targets]
    if sequences.words is not None:
        parts.append(np.where(there[..., None], sequences.words[at], PAD).astype(np.int64))
    return SequenceBatch(*(torch.from_numpy(part) for part in parts))


def batches(
    sequences: Sequences, size: int, length: int, generator: torch.Generator
) -> Iterator[Ints]:
    """The numbers of all sequences, `size` at a time: random, but of like length within a batch."""
    order = torch.randperm(len(sequences), generator=generator).numpy()
    lengths = np.minimum(sequences.lengths, length)
    drawn: list[Ints] = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        drawn += [pool[at : at + size] for at in range(0, len(pool), size)]
    for number in torch.randperm(len(drawn), generator=generator).tolist():
        yield drawn[number]
