import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract.events import key_of
from contract.text import NUM_TOKENS, token_matrix, token_numbers, words
from tests.contract.examples import many


def test_words_are_lower_case_letters_and_digits() -> None:
    assert words("Oat-Milk 2% (1_l), Käse!") == ["oat", "milk", "2", "1", "l", "käse"]
    assert words("... _ ") == []


def test_numbers_are_hashes_past_the_reserved_two() -> None:
    assert token_numbers("oat milk", 8) == [
        2 + key_of("oat") % (8_192 - 2),
        2 + key_of("milk") % (8_192 - 2),
    ]


def test_limit_counts_distinct_words() -> None:
    oat, milk = token_numbers("oat milk", 8)
    assert token_numbers("oat OAT oat milk bread", 2) == [oat, milk]
    assert token_numbers("oat", 0) == []


@many
@given(st.text(max_size=60), st.integers(0, 12))
def test_numbers_stay_in_range(text: str, limit: int) -> None:
    tokens = token_numbers(text, limit)
    assert len(tokens) <= limit
    assert all(2 <= token < NUM_TOKENS for token in tokens)


def test_matrix_is_padded_on_the_right() -> None:
    matrix = token_matrix(["", "oat milk", "a b c d"], 3)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [
        [0, 0, 0],
        [*token_numbers("oat milk", 3), 0],
        token_numbers("a b c", 3),
    ]
    assert token_matrix([], 3).shape == (0, 3)
