"""Several states of one shopper as one, and what is left of one after a while."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from contract.features import FEATURES, SubjectState
from contract.rows import union


class ReadsMany(Protocol):
    """The part of a feature store that a decision uses."""

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """The states of all of them in their order, read at once; empty where nothing is known."""
        ...


@runtime_checkable
class ReadsNow(Protocol):
    """The same of a store that has everything at hand."""

    def read_now(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """As `read_many`, without waiting for anything."""
        ...


async def read_as_one(store: ReadsMany, subject_ids: Sequence[str]) -> SubjectState:
    """The states of one shopper under all of these names."""
    return as_one(await store.read_many(subject_ids))


def as_one(states: Sequence[SubjectState]) -> SubjectState:
    """The same of states that were read; a single one is given back as it is."""
    return states[0] if len(states) == 1 else merged(states)


def merged(states: Iterable[SubjectState]) -> SubjectState:
    """One state that holds what all of `states` do, cut to each feature's capacity."""
    whole: SubjectState = {}
    for state in states:
        for feature in FEATURES:
            rows, held = state.get(feature.name), whole.get(feature.name)
            if rows is not None and len(rows):
                whole[feature.name] = rows if held is None else union(held, rows, feature.capacity)
    return whole


def since(state: SubjectState, before_us: int) -> SubjectState:
    """`state` without rows of before then; the same object when there are none."""
    if not any(rows["occurred_us"][0] < before_us for rows in state.values() if len(rows)):
        return state
    return {name: rows[rows["occurred_us"] >= before_us] for name, rows in state.items()}
