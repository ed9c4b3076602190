"""What can be said of an item that nobody has bought, learning nothing: how popular its kind is,
and how near its text and category lie to what the shopper buys."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from contract.encoding import FIRST_ITEM
from training.evaluation.baselines import Frozen

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
# The scores of some vocabulary indices [n] for every case, [cases, n].
Columns = Callable[[Numbers], Floats]
_LEVELS = np.array([0.05, 0.3, 1.0], np.float32)  # what sharing each level of the path is worth


@dataclass(frozen=True)
class Content:
    """What describes every item. N = len(vocabulary)."""

    text: Floats  # [N, d] unit vectors of the product text, zero where there is none
    categories: npt.NDArray[np.int64]  # [N, 3] codes of the path down to each level


def category_popularity(frozen: Frozen, content: Content) -> Columns:
    """How often an item of the same narrowest category is bought, on average over its items that
    were; a category without any takes the average of the level above."""
    counts = np.asarray(frozen.history.sum(axis=0)).ravel()
    score = np.full(len(counts), counts[counts > 0].mean())
    for level in range(content.categories.shape[1]):
        codes, place = np.unique(content.categories[:, level], return_inverse=True)
        bought = np.bincount(place, counts > 0, minlength=len(codes))
        mean = np.bincount(place, counts, minlength=len(codes)) / np.maximum(bought, 1)
        score = np.where(bought[place] > 0, mean[place], score)
    return lambda index: np.tile(score[index].astype(np.float32), (len(frozen.cases), 1))


def by_text(frozen: Frozen, content: Content, cart_weight: float, sharpness: float) -> Columns:
    """The cosine of each candidate's text, to the power `sharpness`, to the texts of what was
    bought (recency-weighted, halved every 60 days) and, `cart_weight` times, of the cart."""
    known = _known(frozen, cart_weight)

    def scores(index: Numbers) -> Floats:
        cosine = content.text @ content.text[index].T
        return np.asarray(known @ np.power(np.maximum(cosine, 0.0), sharpness), np.float32)

    return scores


def by_category(frozen: Frozen, content: Content, cart_weight: float) -> Columns:
    """The same with the shared levels of the category path in place of the cosine."""
    known = _known(frozen, cart_weight)
    levels = []
    for level in range(content.categories.shape[1]):
        codes, place = np.unique(content.categories[:, level], return_inverse=True)
        member = sparse.csr_array(
            (np.ones(len(place), np.float32), (np.arange(len(place)), place)),
            shape=(len(place), len(codes)),
        )
        levels.append((place, np.asarray((known @ member).toarray(), np.float32)))

    def scores(index: Numbers) -> Floats:
        total = np.zeros((known.shape[0], len(index)), np.float32)
        for worth, (place, held) in zip(_LEVELS, levels, strict=True):
            total += worth * held[:, place[index]]
        return total

    return scores


def _known(frozen: Frozen, cart_weight: float) -> sparse.csr_array:
    """What each case's shopper has and had, [cases, N]: shares of the history, plus the cart's."""
    age = (frozen.cut_us - frozen.times) / (60.0 * 86_400e6)
    history = frozen.summed(np.exp2(-age))[frozen.case_subject]
    return sparse.csr_array(_shares(history) + cart_weight * _shares(frozen.carts)).astype(
        np.float32
    )


def _shares(rows: sparse.csr_array) -> sparse.csr_array:
    total = np.asarray(rows.sum(axis=1)).ravel()
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(total, 1e-9)) @ rows)


def ranked(
    columns: Columns, frozen: Frozen, candidates: npt.NDArray[np.bool_], k: int, chunk: int = 2_048
) -> Numbers:
    """The k best of `candidates` [N] outside the cart for every case, [cases, k]; equal scores by
    index, -1 where there are fewer."""
    best = np.full((len(frozen.cases), k), -1, np.int64)
    value = np.full(best.shape, -np.inf, np.float32)
    allowed = np.flatnonzero(candidates)
    allowed = allowed[allowed >= FIRST_ITEM]
    for start in range(0, len(allowed), chunk):
        index = allowed[start : start + chunk]
        scores = np.array(columns(index), np.float32)
        rows, taken = frozen.carts[:, index].nonzero()
        scores[rows, taken] = -np.inf
        joined = np.concatenate((value, scores), axis=1)
        number = np.concatenate((best, np.broadcast_to(index, scores.shape)), axis=1)
        order = np.argsort(-joined, axis=1, kind="stable")[:, :k]
        value = np.take_along_axis(joined, order, axis=1)
        best = np.take_along_axis(number, order, axis=1)
    return np.where(np.isneginf(value), -1, best)
