"""What the towers learn from: baskets taken apart into cart and rest, encoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from contract.encoding import FIRST_ITEM, Encoded, Situation, Vocabulary, encode, stack
from contract.features import UNKNOWN
from training.data.baskets import Baskets, Numbers, Timelines
from training.data.item_tables import vocabulary_map
from training.data.strata import strata, stratified
from training.data.synthetic_baskets import partners, recombined

TARGETS = (
    6  # positives learned from per basket; the rest of a large basket is left for other epochs
)
REFUSED = 4  # items that the shopper said are not for them, learned from per basket
_HALF = 0.68  # of the carts that are not empty, the share that holds half of the basket


_NONE: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class Question:
    """A basket taken apart: the situation at checkout, the vocabulary indices to be found, and
    those of which the shopper said that they are not for them."""

    situation: Situation
    targets: npt.NDArray[np.int64]
    refused: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)


def questions(
    baskets: Baskets,
    timelines: Timelines,
    vocabulary: Vocabulary,
    numbers: Numbers,
    rng: np.random.Generator,
    *,
    frozen_us: int | None,
    unknown_share: float,
    empty_share: float,
    limit: int,
    label: str,
    synthetic_share: float = 0.0,
    said_until_us: int | None = None,
) -> list[Question]:
    """Up to `limit` of the baskets `numbers`, drawn so that sparse kinds of shoppers keep their
    share, each taken apart at random.

    `frozen_us`: history only before that moment; None for history up to the basket. A share of the
    shoppers is made unknown, so that the models also learn to answer from the cart alone, and a
    share of the carts is left empty. `synthetic_share`: made-up baskets of sparse kinds of shoppers
    on top, as a share of the drawn. What known shoppers said of items up to `said_until_us` is
    learned from; None: nothing of it.
    """
    known = vocabulary_map(baskets, vocabulary) >= FIRST_ITEM
    numbers = numbers[_known_items(baskets, numbers, known) >= 2]
    if not len(numbers):
        return []
    stratum = strata(baskets, numbers, frozen_us)
    drawn = stratified(stratum, limit, rng)
    chosen = [(int(numbers[place]), _items(baskets, numbers[place], known)) for place in drawn]
    if synthetic_share > 0:
        count = round(synthetic_share * len(drawn))
        pairs = partners(stratum[drawn], count, rng)
        chosen += [
            (chosen[own][0], recombined(chosen[own][1], chosen[other][1], rng))
            for own, other in pairs
        ]
    asked: list[Question] = []
    for number, items in tqdm(chosen, desc=label, unit="basket", disable=None, leave=False):
        ids = [baskets.item_ids[item] for item in rng.permutation(items)]
        size = _cart_size(len(ids), empty_share, rng)
        now_us = int(baskets.occurred_us[number])
        before_us = now_us if frozen_us is None else min(frozen_us, now_us)
        view, refused = UNKNOWN, _NONE
        if rng.random() >= unknown_share:
            subject = baskets.subjects[int(baskets.subject[number])]
            view = timelines.view(subject, before_us, now_us)
            if said_until_us is not None:
                refused = vocabulary.of_keys(timelines.refused(subject, said_until_us))
        situation = Situation(
            *(view, tuple(ids[:size]), now_us, baskets.contexts[number]), rules=timelines.rules
        )
        targets = vocabulary.indices(ids[size:])
        refused = refused[(refused >= FIRST_ITEM) & ~np.isin(refused, targets)]
        asked.append(Question(situation, targets, refused))
    return asked


def _known_items(baskets: Baskets, numbers: Numbers, known: npt.NDArray[np.bool_]) -> Numbers:
    """How many known items each of the baskets `numbers` holds."""
    total = np.concatenate(([0], np.cumsum(known[baskets.item])))
    counts: Numbers = total[baskets.offsets[numbers + 1]] - total[baskets.offsets[numbers]]
    return counts


def _items(baskets: Baskets, number: int, known: npt.NDArray[np.bool_]) -> Numbers:
    items = baskets.item[baskets.offsets[number] : baskets.offsets[number + 1]]
    return items[known[items]]


def _cart_size(count: int, empty_share: float, rng: np.random.Generator) -> int:
    if rng.random() < empty_share:
        return 0
    return count // 2 if rng.random() < _HALF else int(rng.integers(1, count))


@dataclass(frozen=True)
class TowerExamples:
    """Encoded situations [B, ...] with their targets [B, TARGETS], PAD where there are fewer; among
    the tensors, where anything was said of items, `refused` [B, REFUSED]."""

    tensors: dict[str, Tensor]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self,
        size: int,
        generator: torch.Generator | None,
        part: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> Iterator["TowerExamples"]:
        """In random order with a `generator`, else as they are; of each batch the rows that `part`
        takes."""
        order = torch.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator)
        for rows in map(part, torch.split(order, size)):
            tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
            yield TowerExamples(tensors, self.targets[rows])

    def to(self, device: torch.device) -> "TowerExamples":
        """The same examples on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return TowerExamples(moved, self.targets.to(device))


def encode_all(situations: list[Situation], vocabulary: Vocabulary) -> dict[str, Tensor]:
    """All situations as one batch of the models' inputs."""
    encoded: list[Encoded] = [encode(situation, vocabulary) for situation in situations]
    return {name: torch.from_numpy(array) for name, array in stack(encoded).items()}


def tower_examples(asked: list[Question], vocabulary: Vocabulary) -> TowerExamples:
    """`asked`, encoded; targets come in the random order in which the baskets were taken apart."""
    targets = np.zeros((len(asked), TARGETS), np.int64)
    for row, question in zip(targets, asked, strict=True):
        kept = question.targets[:TARGETS]
        row[: len(kept)] = kept
    tensors = encode_all([question.situation for question in asked], vocabulary)
    if any(len(question.refused) for question in asked):
        refused = np.zeros((len(asked), REFUSED), np.int64)
        for row, question in zip(refused, asked, strict=True):
            kept = question.refused[:REFUSED]
            row[: len(kept)] = kept
        tensors["refused"] = torch.from_numpy(refused)
    return TowerExamples(tensors, torch.from_numpy(targets))
