"""Which kinds of evidence are told, against the same said in plain Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract.attribution import GROUPS
from contract.evidence_told import CART, MOST_TOLD, NOTHING, kinds_told
from contract.items import Floats
from contract.pair_features import PAIR_FEATURES
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, TEA, indices, neighbours

BEARS_OUT = ("baskets", "cart_similarity", "session_knn", "category_weight")
SHOWN = indices(EGGS, TEA)
INTENT = indices(SOAP, BREAD, MILK)
evidence = st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=4, max_size=4)
moves = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0]), min_size=5, max_size=5)


def plain(
    borne: list[float], added: list[float] | None, *, personal: bool, popular: bool
) -> list[int]:
    kinds = [kind for kind, figure in enumerate([*borne, float(popular)]) if figure > 0]
    if not personal:
        kinds = [
            kind for kind in kinds if list(GROUPS)[kind] not in ("bought_before", "your_taste")
        ]
    if added is not None:
        kinds.sort(key=added.__getitem__, reverse=True)
        kinds = [kind for kind in kinds if added[kind] >= 0] or kinds[:1]
    return kinds[:MOST_TOLD]


@given(
    st.lists(st.tuples(evidence, moves), min_size=2, max_size=2),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_as_plain_python_says_it(
    rows: list[tuple[list[float], list[float]]], weighed: bool, personal: bool, popular: bool
) -> None:
    pairs = np.zeros((2, len(PAIR_FEATURES)), np.float32)
    pairs[:, [PAIR_FEATURES.index(name) for name in BEARS_OUT]] = [borne for borne, _ in rows]
    added: Floats | None = np.array([moved for _, moved in rows], np.float32) if weighed else None
    liked = np.full(10, popular)
    told = kinds_told(pairs, added, SHOWN, liked, neighbours(), INTENT, personal=personal)
    for (borne, moved), (*kinds, nearest) in zip(rows, told, strict=True):
        expected = plain(borne, moved if weighed else None, personal=personal, popular=popular)
        assert [kind for kind in kinds if kind != NOTHING] == expected
        assert (nearest != NOTHING) == (CART in expected)


def test_what_an_item_goes_with_best_is_named_by_its_place() -> None:
    pairs = np.zeros((1, len(PAIR_FEATURES)), np.float32)
    pairs[0, PAIR_FEATURES.index("cart_similarity")] = 1.0
    nobody = np.zeros(10, bool)
    told = kinds_told(pairs, None, indices(MILK), nobody, neighbours(), INTENT, personal=False)
    assert told == [[CART, NOTHING, 1]]  # bread to milk .5, soap to none
