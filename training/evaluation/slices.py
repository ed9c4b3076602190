"""The parts of the cases that are also reported by themselves: what was bought before and what was
not, items that hardly anybody bought, and shoppers who hardly came."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.data.baskets import Baskets
from training.data.item_tables import ItemTables
from training.evaluation import metrics
from training.evaluation.protocols import Case

COLD_ITEM_BASKETS = 10
COLD_SHOPPER_BASKETS = 3
Numbers = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


class Slices:
    """Of `cases` against `tables` and the baskets before `until_us`; `seen` holds for each case the
    vocabulary indices that its shopper bought."""

    def __init__(
        self,
        cases: Sequence[Case],
        baskets: Baskets,
        tables: ItemTables,
        until_us: int,
        seen: Sequence[Numbers],
    ) -> None:
        self._targets = [case.targets for case in cases]
        sold = np.rint(np.expm1(tables.statistics.popularity.astype(np.float64)))
        before = [np.isin(case.targets, known) for case, known in zip(cases, seen, strict=True)]
        self._marked: dict[str, list[Marks]] = {
            "repeat": before,
            "explore": [~marks for marks in before],
            "cold item": [sold[case.targets] < COLD_ITEM_BASKETS for case in cases],
        }
        numbers = baskets.between(int(np.iinfo(np.int64).min), until_us)
        came = np.bincount(baskets.subject[numbers], minlength=len(baskets.subjects))
        subject = baskets.subject[[case.number for case in cases]]
        self._cold_shopper: Marks = came[subject] < COLD_SHOPPER_BASKETS

    def metrics(self, ranked: Numbers) -> dict[str, metrics.Floats]:
        """Recall of the marked targets, and HR and NDCG of the cold shoppers' cases, at
        k = ranked.shape[1]; a slice without a case is left out."""
        k = ranked.shape[1]
        found = {
            f"{name} Recall@{k}": metrics.recall_of(ranked, self._targets, marked)
            for name, marked in self._marked.items()
        }
        cold = np.flatnonzero(self._cold_shopper)
        every = metrics.per_case(ranked[cold], [self._targets[case] for case in cold])
        found |= {f"cold shopper {name}@{k}": every[f"{name}@{k}"] for name in ("HR", "NDCG")}
        return {name: values for name, values in found.items() if len(values)}

    def note(self) -> str:
        """What the slices are and how large."""
        cold = self._marked["cold item"]
        return (
            f"cold items: under {COLD_ITEM_BASKETS} training baskets, "
            f"{sum(int(marks.sum()) for marks in cold)} of {sum(map(len, cold))} targets; "
            f"cold shoppers: under {COLD_SHOPPER_BASKETS}, "
            f"{int(self._cold_shopper.sum())} of {len(cold)} cases"
        )
