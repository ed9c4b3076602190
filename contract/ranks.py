"""Orders that need no sort. Sets of items are bits, and an item's place among them in ascending
order is a count of bits; the highest of many values are held while the others pass by."""

from typing import Any

import numpy as np
import numpy.typing as npt

from contract.compiled import FLOATS, INT, INTS, KEY, KEYS, compiled

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@compiled(KEY)
def bits_in(word: Any) -> int:
    """How many bits of a word are set; what the processor has an instruction for."""
    pairs = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + (
        (pairs >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    eights = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((eights * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled(INT)
def nothing_of(items: int) -> Words:
    """No item of 0 to `items` - 1."""
    return np.zeros((items >> 6) + 1, np.uint64)


@compiled(KEYS)
def before_each(among: Words) -> Indices:
    """How many items stand before each word, and how many there are, [words + 1]."""
    before = np.zeros(len(among) + 1, np.int64)
    for word in range(len(among)):
        before[word + 1] = before[word] + bits_in(among[word])
    return before


@compiled(KEYS, INTS, INT)
def rank_of(among: Words, before: Indices, item: int) -> int:
    """The place of `item`, one of those in `among`."""
    lower = (np.uint64(1) << np.uint64(item & 63)) - np.uint64(1)
    return int(before[item >> 6]) + bits_in(among[item >> 6] & lower)


@compiled(KEYS, INTS)
def items_of(among: Words, before: Indices) -> Indices:
    """The items, ascending."""
    items, at = np.empty(before[-1], np.int64), 0
    for word in range(len(among)):
        left = among[word]
        while left != 0:
            lowest = left & (~left + np.uint64(1))
            items[at] = (word << 6) + bits_in(lowest - np.uint64(1))
            at += 1
            left ^= lowest
    return items


@compiled(FLOATS, INT)
def highest(value: Floats, limit: int) -> Indices:
    """The places of the `limit` highest, best first; equal ones by place. For a small `limit`: each
    that comes among them moves those below it."""
    best, score, held = np.empty(max(limit, 0), np.int64), np.empty(max(limit, 0), np.float32), 0
    for place in range(len(value) if limit > 0 else 0):
        if held == limit and not value[place] > score[held - 1]:
            continue
        held = min(held + 1, limit)
        at = held - 1
        while at > 0 and score[at - 1] < value[place]:
            best[at], score[at] = best[at - 1], score[at - 1]
            at -= 1
        best[at], score[at] = place, value[place]
    return best[:held]
