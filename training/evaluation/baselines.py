"""The baselines of the basket protocols, computed by the same code on the same cases: popularity,
item-kNN on the cart, personal frequencies, their blend, and TIFUKNN. All are frozen at the cut."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from contract.clock import DAY_US
from contract.encoding import FIRST_ITEM, Vocabulary
from training.data.baskets import Baskets, Numbers
from training.data.item_tables import ItemTables, incidence
from training.evaluation.protocols import Case

CHUNK = 256
HALF_LIFE_DAYS = 60.0
BLEND_WEIGHTS = (0.25, 0.5, 1.0, 2.0)

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frozen:
    """What all baselines know: everything before the cut. S subjects, N vocabulary."""

    cases: Sequence[Case]
    vocabulary: Vocabulary
    tables: ItemTables
    history: sparse.csr_array  # [baskets before the cut, N]
    subject: Numbers  # [baskets before the cut]
    times: Numbers  # [baskets before the cut]
    case_subject: Numbers  # [cases]
    carts: sparse.csr_array  # [cases, N]
    num_subjects: int
    cut_us: int

    @classmethod
    def at(
        cls,
        cases: Sequence[Case],
        baskets: Baskets,
        tables: ItemTables,
        vocabulary: Vocabulary,
        cut_us: int,
    ) -> "Frozen":
        """Everything that was known at `cut_us`."""
        numbers = baskets.between(int(np.iinfo(np.int64).min), cut_us)
        position = {subject: place for place, subject in enumerate(baskets.subjects)}
        cart = [vocabulary.indices(case.cart) for case in cases]
        row = np.repeat(np.arange(len(cases)), [len(items) for items in cart])
        column = np.concatenate(cart) if cart else np.empty(0, np.int64)
        ones = np.ones(len(row), np.float32)
        shape = (len(cases), len(vocabulary))
        return cls(
            cases,
            vocabulary,
            tables,
            incidence(baskets, numbers, vocabulary),
            baskets.subject[numbers],
            baskets.occurred_us[numbers],
            np.array([position[case.subject] for case in cases]),
            sparse.csr_array(sparse.coo_array((ones, (row, column)), shape=shape)),
            len(baskets.subjects),
            cut_us,
        )

    def summed(self, weight: npt.NDArray[np.float64]) -> sparse.csr_array:
        """Each subject's weighted sum of baskets, [S, N]; `weight` is one per basket."""
        count = len(self.subject)
        spread = sparse.coo_array(
            (weight, (self.subject, np.arange(count))), shape=(self.num_subjects, count)
        )
        return sparse.csr_array(spread @ self.history)


Scores = Callable[[slice], Matrix]


def popularity(frozen: Frozen) -> Scores:
    """The number of training baskets with the item."""
    counts = np.asarray(frozen.history.sum(axis=0)).ravel().astype(np.float32)
    return lambda part: np.tile(counts, (len(frozen.cases[part]), 1))


def item_knn(frozen: Frozen) -> Scores:
    """Summed cosine to the cart, over all neighbours."""
    return lambda part: (frozen.carts[part] @ frozen.tables.together).toarray()


def personal_frequency(frozen: Frozen) -> Scores:
    """How many of the shopper's baskets held the item."""
    return _personal(frozen, np.ones(len(frozen.times)))


def recency_frequency(frozen: Frozen) -> Scores:
    """The same, each basket halved every 60 days of age at the cut."""
    age_days = (frozen.cut_us - frozen.times) / DAY_US
    return _personal(frozen, np.exp2(-age_days / HALF_LIFE_DAYS))


def blend(frozen: Frozen, weight: float) -> Scores:
    """Recency-weighted frequency plus `weight` times item-kNN, each relative to the case's best."""
    own, near = recency_frequency(frozen), item_knn(frozen)
    return lambda part: _relative(own(part)) + np.float32(weight) * _relative(near(part))


def _relative(scores: Matrix) -> Matrix:
    highest = scores.max(axis=1, keepdims=True)
    return (scores / np.where(highest > 0, highest, 1.0)).astype(np.float32)


def tifuknn(
    frozen: Frozen,
    *,
    groups: int = 7,
    within: float = 0.9,
    across: float = 0.7,
    neighbours: int = 300,
    alpha: float = 0.7,
) -> Scores:
    """Temporal item-frequency kNN (Hu et al., SIGIR 2020): the decayed frequencies of the shopper,
    `alpha` parts, and of the nearest shoppers, the rest."""
    vectors = frozen.summed(_group_weights(frozen, groups, within, across)).astype(np.float32)
    norms = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()

    def scores(part: slice) -> Matrix:
        own = vectors[frozen.case_subject[part]]
        distance = norms[None, :] - 2.0 * (own @ vectors.T).toarray()
        distance[np.arange(own.shape[0]), frozen.case_subject[part]] = np.inf
        count = min(neighbours, vectors.shape[0] - 1)
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        rows = np.repeat(np.arange(len(near)), count)
        pick = sparse.coo_array(
            (np.full(rows.size, 1.0 / count, np.float32), (rows, near.ravel())),
            shape=(len(near), vectors.shape[0]),
        )
        mixed = alpha * own + (1.0 - alpha) * (sparse.csr_array(pick) @ vectors)
        return np.asarray(mixed.toarray(), np.float32)

    return scores


def _group_weights(
    frozen: Frozen, groups: int, within: float, across: float
) -> npt.NDArray[np.float64]:
    """TIFUKNN's weight of each basket: a shopper's baskets in time order fall into `groups` of
    equal size; a basket decays within its group, the group's mean across groups."""
    order = np.lexsort((frozen.times, frozen.subject))
    subject = frozen.subject[order]
    size = np.bincount(subject, minlength=frozen.num_subjects)[subject]
    place = np.arange(len(subject)) - np.searchsorted(subject, subject)
    per_group = -(-size // groups)
    from_end = size - 1 - place
    group, inside = from_end // per_group, from_end % per_group
    used_groups = -(-size // per_group)
    weight = np.empty(len(subject))
    weight[order] = across**group * within**inside / (per_group * used_groups)
    return weight


def _personal(frozen: Frozen, weight: npt.NDArray[np.float64]) -> Scores:
    summed = frozen.summed(weight).astype(np.float32)
    return lambda part: summed[frozen.case_subject[part]].toarray()


def rank(frozen: Frozen, scores: Scores, k: int) -> Numbers:
    """The k best items outside the cart for every case, [cases, k]; ties and shoppers without a
    score are settled by popularity."""
    counts = np.asarray(frozen.history.sum(axis=0)).ravel()
    # In double precision, below the smallest step between real scores: it orders ties, no more.
    tie_break = 1e-9 * counts / (counts.max() + 1.0)
    ranked = np.empty((len(frozen.cases), k), np.int64)
    for part in _parts(len(frozen.cases)):
        # Negative, because numpy sorts upwards; in place, because every copy is of all items.
        dense = scores(part).astype(np.float64)
        dense += tie_break
        np.negative(dense, out=dense)
        rows, columns = frozen.carts[part].nonzero()
        dense[rows, columns] = np.inf
        dense[:, :FIRST_ITEM] = np.inf
        best = np.argpartition(dense, k, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(dense, best, axis=1), axis=1, kind="stable")
        ranked[part] = np.take_along_axis(best, order, axis=1)
    return ranked


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))
