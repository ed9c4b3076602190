"""Several states of one shopper as one, and what is left of one after a while."""

from collections.abc import Iterable

from contract.features import FEATURES, SubjectState
from contract.rows import union


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
