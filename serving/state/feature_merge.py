"""Several states of one shopper as one."""

from collections.abc import Iterable

from contract.features import FEATURES, SubjectState
from contract.rows import merge


def merged(states: Iterable[SubjectState]) -> SubjectState:
    """One state that holds what all of `states` do, cut to each feature's capacity."""
    whole: SubjectState = {}
    for state in states:
        for feature in FEATURES:
            if feature.name in state:
                held = whole.get(feature.name, feature.empty())
                whole[feature.name] = merge(held, state[feature.name], feature.capacity)
    return whole
