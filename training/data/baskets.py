"""Purchases as baskets, and what was known about their shoppers at any moment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract import feedback
from contract.encoding import Vocabulary
from contract.errors import UserError
from contract.events import EventContext
from contract.features import FEATURES, FEEDBACK, SubjectState, SubjectView, view
from contract.frames import explode, holds
from contract.rows import Rows
from contract.segment_config import DEFAULT, SegmentConfig
from training.data.returns import WHOLE, returned

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Baskets:
    """Purchase events in time order. Shapes: B baskets, E entries (distinct items of a basket)."""

    basket_id: list[str]  # [B] transaction_id
    subject: Numbers  # [B] position in `subjects`
    occurred_us: Numbers  # [B]
    offsets: Numbers  # [B + 1] into item
    item: Numbers  # [E] position in `item_ids`
    subjects: list[str]
    item_ids: list[str]
    contexts: list[EventContext | None]  # [B]

    def __len__(self) -> int:
        return len(self.basket_id)

    def between(self, start_us: int, end_us: int) -> Numbers:
        """The numbers of the baskets in [start_us, end_us)."""
        first, last = np.searchsorted(self.occurred_us, (start_us, end_us))
        return np.arange(first, last)

    def take(self, numbers: Numbers) -> "Baskets":
        """The baskets `numbers` (ascending) alone; subjects and items keep their positions."""
        sizes = self.offsets[numbers + 1] - self.offsets[numbers]
        return replace(
            self,
            basket_id=[self.basket_id[number] for number in numbers.tolist()],
            subject=self.subject[numbers],
            occurred_us=self.occurred_us[numbers],
            offsets=np.concatenate(([0], np.cumsum(sizes))),
            item=self.entries(numbers)[1],
            contexts=[self.contexts[number] for number in numbers.tolist()],
        )

    def entries(self, baskets: Numbers) -> tuple[Numbers, Numbers]:
        """Every (basket number, item position) of `baskets`."""
        sizes = self.offsets[baskets + 1] - self.offsets[baskets]
        rows = np.repeat(self.offsets[baskets] - (np.cumsum(sizes) - sizes), sizes)
        return np.repeat(baskets, sizes), self.item[rows + np.arange(len(rows))]

    def vocabulary(self, until_us: int, min_baskets: int) -> Vocabulary:
        """Items in at least `min_baskets` baskets before `until_us`, most frequent first."""
        _, item = self.entries(self.between(_EARLIEST, until_us))
        counts = np.bincount(item, minlength=len(self.item_ids))
        kept = sorted(
            np.flatnonzero(counts >= min_baskets).tolist(),
            key=lambda i: (-counts[i], self.item_ids[i]),
        )
        if not kept:
            raise UserError(f"no item stands in {min_baskets} or more baskets of the training time")
        return Vocabulary(tuple(self.item_ids[i] for i in kept))


_EARLIEST = int(np.iinfo(np.int64).min)


def read_baskets(events: pa.Table) -> Baskets:
    """The purchases of `events` (columns of EVENT_SCHEMA) that were written under
    `personalization`: models learn from nothing else. What was given back in full was not bought.
    UserError when there are none."""
    bought = events.filter(pc.equal(events["event_name"], "purchase"))
    table = bought.filter(pa.array(holds(bought["purposes"], "personalization"))).sort_by(
        [("occurred_at", "ascending"), ("event_id", "ascending")]
    )
    if not table.num_rows:
        raise UserError(
            f"{bought.num_rows} purchases, none of them written under personalization; this needs "
            "baskets that may be learned from"
        )
    table = table.combine_chunks()
    items = table["items"].chunk(0)
    entries = pa.table(
        {
            "basket": pc.list_parent_indices(items),
            "item": pc.struct_field(pc.list_flatten(items), "item_id"),
            "quantity": pc.fill_null(pc.struct_field(pc.list_flatten(items), "quantity"), 1),
        }
    )
    entries = (
        entries.group_by(["basket", "item"])
        .aggregate([("quantity", "sum")])
        .sort_by([("basket", "ascending"), ("item", "ascending")])
    )
    back = returned(events)
    if back:
        table, entries = _without_returns(table, entries, back)
    item = entries["item"].combine_chunks().dictionary_encode()
    subject = table["subject_id"].chunk(0).dictionary_encode()
    return Baskets(
        basket_id=table["transaction_id"].to_pylist(),
        subject=subject.indices.to_numpy().astype(np.int64),
        occurred_us=table["occurred_at"].cast(pa.int64()).to_numpy(),
        offsets=np.searchsorted(entries["basket"].to_numpy(), np.arange(table.num_rows + 1)),
        item=item.indices.to_numpy().astype(np.int64),
        subjects=subject.dictionary.to_pylist(),
        item_ids=item.dictionary.to_pylist(),
        contexts=_contexts(table["context"]),
    )


def _without_returns(
    table: pa.Table, entries: pa.Table, back: Mapping[tuple[str, str], int]
) -> tuple[pa.Table, pa.Table]:
    """Baskets and their entries without the items of which at least as many came `back`, and
    without the baskets of which nothing is left, or which came back whole."""
    transactions = table["transaction_id"].to_pylist()
    places = entries["basket"].to_pylist()
    kept = [
        (transactions[basket], WHOLE) not in back
        and quantity > back.get((transactions[basket], item), 0)
        for basket, item, quantity in zip(
            places, entries["item"].to_pylist(), entries["quantity_sum"].to_pylist(), strict=True
        )
    ]
    entries = entries.filter(pa.array(kept))
    baskets, number = np.unique(entries["basket"].to_numpy(), return_inverse=True)
    if not len(baskets):
        raise UserError("everything that was bought was given back; nothing to learn from")
    entries = entries.set_column(0, "basket", pa.array(number))
    return table.take(pa.array(baskets)).combine_chunks(), entries


def _contexts(column: pa.ChunkedArray) -> list[EventContext | None]:
    """Contexts, one object for all equal ones."""
    known: dict[tuple[tuple[str, str], ...], EventContext] = {}
    contexts: list[EventContext | None] = []
    for row in column.to_pylist():
        if row is None:
            contexts.append(None)
            continue
        key = tuple(sorted((k, v) for k, v in row.items() if v is not None))
        if key not in known:
            known[key] = EventContext.model_validate(dict(key))
        contexts.append(known[key])
    return contexts


class Timelines:
    """Every feature's rows over the whole of time, so that its state at any moment is a slice."""

    def __init__(self, rows: dict[str, dict[str, Rows]], rules: SegmentConfig = DEFAULT) -> None:
        self._rows = rows  # by feature, then by subject
        self.rules = rules  # which segments the shop tells apart

    @classmethod
    def of(cls, events: pa.Table, rules: SegmentConfig = DEFAULT) -> "Timelines":
        """From a table with the columns of EVENT_SCHEMA."""
        frame = explode(events)
        return cls({f.name: f.replay(frame, capacity=len(frame) + 1) for f in FEATURES}, rules)

    def under(self, rules: SegmentConfig) -> "Timelines":
        """The same timelines under other segment rules."""
        return Timelines(self._rows, rules)

    @property
    def subjects(self) -> list[str]:
        """Everybody of whom anything is remembered, in order."""
        return sorted(set().union(*self._rows.values()))

    def without(self, item_keys: npt.NDArray[np.uint64]) -> "Timelines":
        """The same timelines without any row of the items `item_keys`."""
        return Timelines(
            {
                name: {subject: _without(rows, item_keys) for subject, rows in by_subject.items()}
                for name, by_subject in self._rows.items()
            },
            self.rules,
        )

    def state(self, subject: str, before_us: int) -> SubjectState:
        """The subject's state after all events before `before_us`."""
        state: SubjectState = {}
        for feature in FEATURES:
            rows = self._rows[feature.name].get(subject)
            if rows is not None:
                end = np.searchsorted(rows["occurred_us"], before_us, side="left")
                state[feature.name] = rows[max(0, end - feature.capacity) : end]
        return state

    @property
    def said(self) -> bytes:
        """Everything that was said of items, as bytes that tell it from anything else."""
        rows = self._rows[FEEDBACK.name]
        return b"".join(subject.encode() + rows[subject].tobytes() for subject in sorted(rows))

    def refused(self, subject: str, until_us: int) -> npt.NDArray[np.uint64]:
        """The keys of the items that the subject said, before `until_us`, are not for them or
        brought back, and has not bought again."""
        if subject not in self._rows[FEEDBACK.name]:
            return np.empty(0, np.uint64)
        return feedback.refused(self.state(subject, until_us), until_us, np.inf)[0]

    def view(self, subject: str, before_us: int, now_us: int) -> SubjectView:
        """The features' values at `now_us` from what happened before `before_us`."""
        return view(self.state(subject, before_us), now_us)


def _without(rows: Rows, item_keys: npt.NDArray[np.uint64]) -> Rows:
    if "item_key" not in (rows.dtype.names or ()):
        return rows
    return rows[~np.isin(rows["item_key"], item_keys)]
