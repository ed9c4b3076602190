from dataclasses import replace
from math import log1p
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.encoding import (
    CART,
    CONTEXT_SIZES,
    FIRST_ITEM,
    FREQUENT,
    LENGTH,
    NUM_EVENT_TYPES,
    NUM_GAPS,
    OOV,
    PAD,
    QUERY_TOWER_INPUTS,
    SEQUENCE_INPUTS,
    Encoded,
    Situation,
    Vocabulary,
    encode,
    gap_buckets,
    index_of_key,
    stack,
    table_of,
)
from contract.events import EVENT_TYPE, EventContext, key_of
from contract.features import UNKNOWN
from contract.segments import NUM_SEGMENTS
from contract.text import NUM_TOKENS, token_numbers
from tests.contract.examples import event, many, us
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, VOCABULARY, situation, situations

INPUTS = QUERY_TOWER_INPUTS | SEQUENCE_INPUTS
EMPTY = Situation(UNKNOWN, (), us(0))
PURCHASE, ADD, VIEW = (EVENT_TYPE[name] for name in ("purchase", "add_to_cart", "view_item"))
MINUTE = 60 * 10**6


def check_declared(encoded: Encoded) -> None:
    """The tensors are those that the models declare, and every number is one they know."""
    assert {name: (a.shape, str(a.dtype)) for name, a in encoded.items()} == INPUTS
    sizes = {
        "frequent_items": len(VOCABULARY),
        "cart_items": len(VOCABULARY),
        "context": list(CONTEXT_SIZES.values()),
        "search_tokens": NUM_TOKENS,
        "sequence_items": len(VOCABULARY),
        "sequence_types": NUM_EVENT_TYPES,
        "sequence_gaps": NUM_GAPS,
    }
    for name, size in sizes.items():
        tensor: Any = encoded[name]
        assert (tensor >= 0).all()
        assert (tensor < size).all()
    for name in ("frequent_weights", "segments", "recency"):
        assert np.isfinite(encoded[name]).all()


@many
@given(situations(), st.sampled_from((VOCABULARY, Vocabulary(()), Vocabulary(("tea",)))))
def test_any_situation_has_the_declared_form(told: Situation, vocabulary: Vocabulary) -> None:
    encoded = encode(told, vocabulary)
    check_declared(encoded)
    held = min(LENGTH, len(told.view.interactions) + len(told.recent_items) + len(told.cart))
    for name in SEQUENCE_INPUTS:  # padded on the left, nowhere else
        assert (encoded[name] != PAD).tolist() == [False] * (LENGTH - held) + [True] * held
    in_cart = min(CART, len(told.cart))
    assert (encoded["cart_items"] != PAD).tolist() == [True] * in_cart + [False] * (CART - in_cart)
    weights = encoded["frequent_weights"]
    assert float(np.sum(weights)) == pytest.approx(float(len(told.view.purchased) > 0), abs=1e-5)
    assert (np.diff(weights) <= 0).all()


def test_nothing_known_is_padding_everywhere() -> None:
    encoded = encode(EMPTY, VOCABULARY)
    check_declared(encoded)
    for name, tensor in encoded.items():
        assert tensor.any() == (name == "segments")
    assert encoded["segments"].tolist() == [1.0] + [0.0] * (NUM_SEGMENTS - 1)


def test_by_hand() -> None:
    context = EventContext(device="mobile", country="US", timezone="America/New_York")
    told = situation(
        event(1, day=0, items=["milk", "bread"]),
        event(2, day=60, items=["milk", "caviar"]),
        event(3, "view_item", day=60 + 3 / 1440, items=["eggs"]),
        event(4, "search", day=60, items=(), search_term="oat milk"),
        day=120,
        cart=("soap", "champagne"),
        context=context,
    )
    encoded = encode(replace(told, recent_items=("bread",)), VOCABULARY)
    milk, bread, caviar = 1 / 4 + 1 / 2, 1 / 4, 1 / 2  # halved every 60 days
    total = milk + bread + caviar
    assert encoded["frequent_items"].tolist() == [MILK, OOV, BREAD] + [PAD] * (FREQUENT - 3)
    assert encoded["frequent_weights"][:4].tolist() == pytest.approx(
        [milk / total, caviar / total, bread / total, 0]
    )
    assert encoded["cart_items"].tolist() == [SOAP, OOV] + [PAD] * (CART - 2)
    # Day 120 after Monday 2017-11-20 is a Tuesday, 20 March, 20 o'clock on the 19th in New York.
    assert encoded["context"].tolist() == [2, 1 + key_of("US") % 63, 0, 1 + 20, 1 + 0]
    # two baskets, 60 days ago, 60 days apart, two items each
    assert encoded["recency"].tolist() == pytest.approx(
        [log1p(2), log1p(60), log1p(60), log1p(2)], rel=1e-6
    )
    assert encoded["search_tokens"].tolist() == token_numbers("oat milk", 16) + [0] * 14
    assert encoded["sequence_items"][-8:].tolist() == [
        *(MILK, BREAD, MILK, OOV, EGGS, BREAD, SOAP, OOV)
    ]
    assert encoded["sequence_types"][-8:].tolist() == [*[PURCHASE] * 4, VIEW, VIEW, ADD, ADD]
    # gaps of 0 and 0 minutes, 60 days (86,400 min), 0, 3 min, 60 days less 3 min (86,397), 0, 0
    assert encoded["sequence_gaps"][-8:].tolist() == [1, 1, 1 + 16, 1, 1 + 2, 1 + 16, 1, 1]
    assert not encoded["sequence_items"][:-8].any()


def test_searches_of_this_page_come_first() -> None:
    remembered = situation(event(1, "search", items=(), search_term="tea"), day=1)
    here = replace(remembered, search_terms=("oat milk", "a b c d e f g h i j k l m n o"))
    tokens = encode(here, VOCABULARY)["search_tokens"].tolist()
    assert tokens == token_numbers("oat milk", 16) + token_numbers(
        "a b c d e f g h i j k l m n", 16
    )
    assert encode(remembered, VOCABULARY)["search_tokens"].tolist()[:2] == [
        *token_numbers("tea", 16),
        0,
    ]


def test_latest_things_are_kept() -> None:
    ids = tuple(f"item-{n}" for n in range(100))
    encoded = encode(replace(EMPTY, cart=ids), Vocabulary(ids))
    assert encoded["cart_items"].tolist() == list(range(2 + 100 - CART, 2 + 100))
    assert encoded["sequence_items"].tolist() == list(range(2 + 100 - LENGTH, 2 + 100))


def test_strongest_items_are_kept() -> None:
    ids = tuple(f"item-{n}" for n in range(100))
    log = [event(1 + n, day=n, items=[item]) for n, item in enumerate(ids)]
    encoded = encode(situation(*log, day=100), Vocabulary(ids))
    assert encoded["frequent_items"].tolist() == list(range(2 + 99, 2 + 99 - FREQUENT, -1))
    assert np.sum(encoded["frequent_weights"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("minutes", "bucket"),
    [(-5, 1), (0, 1), (0.99, 1), (1, 2), (2.99, 2), (3, 3), (1023, 11), (2**22 - 1, 23), (1e9, 23)],
)
def test_gap_is_one_plus_log2_of_minutes(minutes: float, bucket: int) -> None:
    assert gap_buckets(np.array([int(minutes * MINUTE)], np.int64)).tolist() == [bucket]


def test_stack_adds_a_batch_dimension() -> None:
    one = encode(EMPTY, VOCABULARY)
    batch = stack([one, encode(replace(EMPTY, cart=("milk",)), VOCABULARY)])
    assert {name: a.shape for name, a in batch.items()} == {
        name: (2, *shape) for name, (shape, _) in INPUTS.items()
    }
    assert batch["cart_items"][:, 0].tolist() == [PAD, MILK]


@many
@given(st.lists(st.text(max_size=8), max_size=20, unique=True), st.lists(st.text(max_size=8)))
def test_keys_lead_to_the_same_index_as_ids(known: list[str], others: list[str]) -> None:
    vocabulary = Vocabulary(tuple(known))
    asked = known + others
    expected = [2 + known.index(one) if one in known else OOV for one in asked]
    keys = np.array([key_of(one) for one in asked], np.uint64)
    assert [vocabulary.index(one) for one in asked] == expected
    assert vocabulary.indices(asked).tolist() == expected
    assert vocabulary.of_keys(keys).tolist() == expected
    assert [index_of_key(vocabulary.key_table, key) for key in keys] == expected
    assert vocabulary.of_keys(keys).dtype == vocabulary.indices(asked).dtype == np.int64
    assert len(vocabulary) == 2 + len(known)
    assert [vocabulary.item_id(index) for index in expected[: len(known)]] == known


def test_keys_that_begin_at_one_place_are_all_found() -> None:
    """All of them belong at the last place of the table, so they go on at its beginning."""
    keys = np.arange(1, 9, dtype=np.uint64) * np.uint64(16) - np.uint64(1)
    table = table_of(keys, np.arange(FIRST_ITEM, FIRST_ITEM + 8))
    assert len(table) == 16
    assert [index_of_key(table, key) for key in keys] == list(range(FIRST_ITEM, FIRST_ITEM + 8))
    assert index_of_key(table, np.uint64(9 * 16 - 1)) == OOV


def test_vocabulary_refuses_doubles_and_reserved_places() -> None:
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(("milk", "bread", "milk"))
    for reserved in (PAD, OOV):
        with pytest.raises(IndexError, match="reserved"):
            VOCABULARY.item_id(reserved)
        with pytest.raises(IndexError, match="reserved"):
            VOCABULARY.ids(np.array([FIRST_ITEM, reserved]))


def test_the_ids_of_many_indices() -> None:
    every = np.arange(FIRST_ITEM, len(VOCABULARY))[::-1]
    assert VOCABULARY.ids(every) == tuple(map(VOCABULARY.item_id, every.tolist()))
    assert VOCABULARY.ids(every[:0]) == ()


def test_vocabulary_hash_tells_order_and_borders_apart() -> None:
    vocabularies = [("a", "b"), ("b", "a"), ("ab",), ("a",), (), ("a1:b",)]
    assert len({Vocabulary(ids).hash for ids in vocabularies}) == len(vocabularies)
    assert Vocabulary(("a", "b")).hash == Vocabulary(("a", "b")).hash
