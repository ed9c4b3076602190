"""The questions of a retraining: baskets of the fresh window taken apart as in basket-completion,
asked of champion and challenger alike.

Fair means: both were fitted before the window begins, both know each shopper's history up to that
moment and no further, and both are asked about every item that either knows. An item that only one
of them has is a miss for the other, as it would be in the shop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from contract.clock import to_us
from contract.encoding import Situation, Vocabulary
from contract.segment_config import SegmentConfig
from contract.segments import names
from training.data.source import Source
from training.evaluation.protocols import (
    Case,
    Window,
    bought_before,
    completion_cases,
    situation,
)

K = 5
COLD_ITEM_BASKETS, COLD_SHOPPER_BASKETS = 10, 3
Numbers = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Questions:
    """T cases over `vocabulary`, which holds every item that one of the releases knows."""

    source: Source
    window: Window
    vocabulary: Vocabulary
    cases: Sequence[Case]

    @classmethod
    def of(
        cls,
        source: Source,
        window: Window,
        known: Sequence[Vocabulary],
        limit: int,
        seed: int = 0,
    ) -> "Questions":
        """Up to `limit` cases of the window, drawn at random. UserError where it holds none."""
        ids = dict.fromkeys(item_id for one in known for item_id in one.item_ids)
        vocabulary = Vocabulary(tuple(ids))
        cases = completion_cases(source.baskets, window, vocabulary)
        order = np.random.default_rng(seed).permutation(len(cases))[:limit]
        return cls(source, window, vocabulary, [cases[place] for place in np.sort(order)])

    @property
    def frozen_us(self) -> int:
        """Nothing later is known to either release."""
        return to_us(self.window.train_until)

    def situations(self, rules: SegmentConfig, *, unknown: bool = False) -> list[Situation]:
        """The cases under a release's own segment rules, or as if nobody were known."""
        timelines = self.source.timelines.under(rules)
        return [
            situation(case, self.source.baskets, timelines, self.frozen_us, unknown=unknown)
            for case in self.cases
        ]

    def live(self, rules: SegmentConfig, limit: int) -> list[Situation]:
        """The first `limit` cases with all that was known at their moment: what a gateway sees."""
        timelines, baskets = self.source.timelines.under(rules), self.source.baskets
        return [situation(case, baskets, timelines, case.now_us) for case in self.cases[:limit]]

    @cached_property
    def shopper(self) -> Numbers:
        """A code for the shopper of each case, [T]."""
        numbers = [case.number for case in self.cases]
        return self.source.baskets.subject[numbers]

    @property
    def targets(self) -> list[Numbers]:
        """What is to be found, in indices of `vocabulary`."""
        return [case.targets for case in self.cases]

    @cached_property
    def asked_of(self) -> Mapping[str, Marks]:
        """Slices of questions, [T] each: kinds of shoppers, places, times and carts."""
        contexts = [self.source.baskets.contexts[case.number] for case in self.cases]
        found: dict[str, Marks] = {}
        for told in ("region", "device"):
            values = [None if one is None else getattr(one, told) for one in contexts]
            for value in sorted({one for one in values if one is not None}):
                found[f"{told} {value}"] = np.array([one == value for one in values])
        day = np.array([(case.now_us // 86_400_000_000 + 3) % 7 for case in self.cases])
        found["weekend"], found["weekday"] = day >= 5, day < 5
        size = np.array([len(case.cart) for case in self.cases])
        found["small cart (1-2)"], found["large cart (8 and more)"] = size <= 2, size >= 8
        return found | self._segments()

    @cached_property
    def cold_shoppers(self) -> Marks:
        """Whether the shopper had come under COLD_SHOPPER_BASKETS times before the window, [T]."""
        baskets = self.source.baskets
        numbers = baskets.between(int(np.iinfo(np.int64).min), self.frozen_us)
        came = np.bincount(baskets.subject[numbers], minlength=len(baskets.subjects))
        marked: Marks = came[self.shopper] < COLD_SHOPPER_BASKETS
        return marked

    @cached_property
    def owned(self) -> list[Numbers]:
        """For each case what its shopper had bought before the window."""
        return bought_before(self.cases, self.source.baskets, self.frozen_us, self.vocabulary)

    @cached_property
    def about(self) -> Mapping[str, Sequence[Marks]]:
        """Slices of what is to be found: for each case which of its targets."""
        before = [np.isin(c.targets, own) for c, own in zip(self.cases, self.owned, strict=True)]
        return {
            "bought before": before,
            "never bought before": [~marks for marks in before],
        } | self._departments()

    @cached_property
    def cold_items(self) -> list[Marks]:
        """For each case which of its targets stood in under COLD_ITEM_BASKETS baskets."""
        baskets = self.source.baskets
        numbers = baskets.between(int(np.iinfo(np.int64).min), self.frozen_us)
        _, item = baskets.entries(numbers)
        counts = np.bincount(item, minlength=len(baskets.item_ids))
        sold = np.zeros(len(self.vocabulary), np.int64)
        sold[self.vocabulary.indices(baskets.item_ids)] = counts
        return [sold[case.targets] < COLD_ITEM_BASKETS for case in self.cases]

    def _segments(self) -> dict[str, Marks]:
        rules = self.source.timelines.rules
        held = [set(names(one.segments, rules)) for one in self.situations(rules)]
        every = sorted(set().union(*held))
        return {f"segment {name}": np.array([name in one for one in held], bool) for name in every}

    def _departments(self, most: int = 8) -> dict[str, list[Marks]]:
        """The top categories of what was bought, the most frequent ones."""
        rows = self.source.catalogue
        paths = dict(
            zip(rows["item_id"].to_pylist(), rows["category_path"].to_pylist(), strict=True)
        )
        top = np.array(["", "", *((paths.get(one) or [""])[0] for one in self.vocabulary.item_ids)])
        every, counts = np.unique(top[np.concatenate(self.targets)], return_counts=True)
        frequent = [str(every[place]) for place in np.argsort(-counts)[:most] if every[place]]
        return {
            f"category {name}": [top[case.targets] == name for case in self.cases]
            for name in frequent
        }
