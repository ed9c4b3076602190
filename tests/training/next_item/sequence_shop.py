"""Sequences with a rule to be learned: every item is followed by the one seven places on."""

import random

from contract.encoding import Vocabulary
from training.next_item.sequences import Sequences, sequences_of

ITEMS = 40


def lists(users: int, seed: int = 0) -> list[list[str]]:
    """Item ids of each user: four steps of five follow the rule."""
    draw = random.Random(seed)
    made = []
    for _ in range(users):
        item, row = draw.randrange(ITEMS), []
        for _ in range(draw.randrange(4, 10)):
            row.append(f"i{item}")
            item = (item + 7) % ITEMS if draw.random() < 0.8 else draw.randrange(ITEMS)
        made.append(row)
    return made


def vocabulary() -> Vocabulary:
    """All items, in the order of their numbers."""
    return Vocabulary(tuple(f"i{item}" for item in range(ITEMS)))


def sequences(users: int, seed: int = 0) -> Sequences:
    """`lists`, encoded."""
    return sequences_of(lists(users, seed), vocabulary())
