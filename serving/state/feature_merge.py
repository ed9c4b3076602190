"""Several states of one shopper as one."""

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
