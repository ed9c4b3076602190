"""Whoever asks for it is called between the pieces of long work, and nobody else notices."""

import threading

import pytest

from contract.encoding import Vocabulary
from contract.items import category_codes
from contract.pieces import SIZE, between_pieces, in_pieces, pausing


@pytest.mark.parametrize("count", [0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE + 7])
def test_pieces_are_the_items_in_their_order(count: int) -> None:
    pauses: list[None] = []
    with pausing(lambda: pauses.append(None)):
        assert list(in_pieces(range(count))) == list(range(count))
    assert len(pauses) == -(-count // SIZE)
    assert list(in_pieces(range(count))) == list(range(count))


def test_the_pause_is_that_of_one_thread_and_of_one_block() -> None:
    told: list[str] = []
    with pausing(lambda: told.append("outer")):
        other = threading.Thread(target=between_pieces)
        other.start()
        other.join()
        assert told == []
        with pausing(lambda: told.append("inner")):
            between_pieces()
        between_pieces()
    between_pieces()
    assert told == ["inner", "outer"]


def test_what_is_made_of_a_whole_catalogue_is_made_in_pieces() -> None:
    ids = tuple(f"item-{number}" for number in range(4 * SIZE))
    pauses: list[None] = []
    with pausing(lambda: pauses.append(None)):
        in_parts = Vocabulary(ids)
        for made in (
            lambda: in_parts.hash,
            lambda: in_parts.by_key,
            lambda: in_parts.index(ids[0]),
            lambda: category_codes([("FOOD", one) for one in ids]),
        ):
            pauses.clear()
            made()
            assert len(pauses) >= 4
    assert in_parts.hash == Vocabulary(ids).hash
    assert (in_parts.by_key[1] == Vocabulary(ids).by_key[1]).all()
