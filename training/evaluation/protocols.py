"""The frozen protocols `basket-completion` and `next-basket`: which baskets are asked, with which
cart and history, and what counts as right. Every model and baseline answers the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

import numpy as np

from contract.clock import DAY_US, to_us
from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from contract.errors import UserError
from contract.features import UNKNOWN
from contract.held_out import hash_order
from training.data.baskets import Baskets, Numbers, Timelines
from training.data.item_tables import vocabulary_map

Protocol = Literal["basket-completion", "next-basket"]
CUTOFF = {"basket-completion": 5, "next-basket": 10}
MIN_BASKETS = 5


@dataclass(frozen=True)
class Window:
    """Train before `train_until`; models are chosen on [validate_from, train_until); test on
    [train_until, test_until). All at midnight UTC."""

    validate_from: datetime
    train_until: datetime
    test_until: datetime

    def __post_init__(self) -> None:
        if not self.validate_from < self.train_until < self.test_until:
            raise UserError(
                "the window must run validate-from < train-until < test-until, not "
                f"{self.validate_from:%Y-%m-%d}, {self.train_until:%Y-%m-%d}, "
                f"{self.test_until:%Y-%m-%d}"
            )

    def before(self) -> "Window":
        """The window for choosing: everything as if training ended where validation begins."""
        length = self.train_until - self.validate_from
        return Window(self.validate_from - length, self.validate_from, self.train_until)


@dataclass(frozen=True)
class Case:
    """One question: what else is in basket `number`, or, with an empty cart, what is in it."""

    number: int  # in Baskets
    subject: str
    cart: tuple[str, ...]
    targets: Numbers  # vocabulary indices
    now_us: int


def completion_cases(baskets: Baskets, window: Window, vocabulary: Vocabulary) -> list[Case]:
    """A case for each test basket with two or more catalogue items: half cart, half target."""
    cases = []
    for number, known in _test_baskets(baskets, window, vocabulary):
        if len(known) >= 2:
            order = hash_order(baskets.basket_id[number], known)
            half = len(order) // 2
            cases.append(_case(baskets, number, order[:half], order[half:], vocabulary))
    return _not_empty(cases, window)


def next_basket_cases(baskets: Baskets, window: Window, vocabulary: Vocabulary) -> list[Case]:
    """A case for each shopper's first test basket; test baskets are the same in both protocols,
    those with two or more catalogue items."""
    cases, asked = [], set()
    for number, known in _test_baskets(baskets, window, vocabulary):
        subject = int(baskets.subject[number])
        if len(known) >= 2 and subject not in asked:
            asked.add(subject)
            cases.append(_case(baskets, number, [], known, vocabulary))
    return _not_empty(cases, window)


def cases_of(
    protocol: Protocol, baskets: Baskets, window: Window, vocabulary: Vocabulary
) -> list[Case]:
    """The cases of `protocol`; UserError when the window holds none."""
    build = completion_cases if protocol == "basket-completion" else next_basket_cases
    return build(baskets, window, vocabulary)


def situation(
    case: Case, baskets: Baskets, timelines: Timelines, frozen_us: int, *, unknown: bool = False
) -> Situation:
    """What a model may know: the history before `frozen_us` (or nothing at all) and the cart."""
    view = UNKNOWN
    if not unknown:
        view = timelines.view(case.subject, min(frozen_us, case.now_us), case.now_us)
    return Situation(
        *(view, case.cart, case.now_us, baskets.contexts[case.number]), rules=timelines.rules
    )


def bought_before(
    cases: Sequence[Case], baskets: Baskets, until_us: int, vocabulary: Vocabulary
) -> list[Numbers]:
    """For each case the vocabulary indices that its shopper bought before `until_us`."""
    numbers = baskets.between(int(np.iinfo(np.int64).min), until_us)
    basket, item = baskets.entries(numbers)
    subject = baskets.subject[basket]
    order = np.argsort(subject, kind="stable")
    index, subject = vocabulary_map(baskets, vocabulary)[item][order], subject[order]
    position = {subject_id: number for number, subject_id in enumerate(baskets.subjects)}
    bounds = np.searchsorted(subject, np.arange(len(baskets.subjects) + 1))
    own = [np.unique(index[a:b]) for a, b in pairwise(bounds)]
    return [own[position[case.subject]] for case in cases]


def _test_baskets(
    baskets: Baskets, window: Window, vocabulary: Vocabulary
) -> list[tuple[int, list[str]]]:
    numbers = baskets.between(to_us(window.train_until), to_us(window.test_until))
    known = vocabulary_map(baskets, vocabulary) >= FIRST_ITEM
    found = []
    for number in numbers.tolist():
        items = baskets.item[baskets.offsets[number] : baskets.offsets[number + 1]]
        found.append((number, [baskets.item_ids[i] for i in items[known[items]]]))
    return found


def _case(
    baskets: Baskets, number: int, cart: list[str], targets: list[str], vocabulary: Vocabulary
) -> Case:
    return Case(
        number,
        baskets.subjects[int(baskets.subject[number])],
        tuple(cart),
        vocabulary.indices(targets),
        int(baskets.occurred_us[number]),
    )


def _not_empty(cases: list[Case], window: Window) -> list[Case]:
    if not cases:
        days = (to_us(window.test_until) - to_us(window.train_until)) // DAY_US
        raise UserError(
            f"no test basket in the {days} days from {window.train_until:%Y-%m-%d}; "
            "move the window with --train-until and --test-until"
        )
    return cases
