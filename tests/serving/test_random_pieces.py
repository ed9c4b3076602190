"""Random pieces come from one draw; no two of them are ever the same, in this process or in one
that was forked off it."""

import os
from concurrent.futures import ThreadPoolExecutor

from serving.random_pieces import random_id, random_piece


def test_every_piece_is_given_once_whoever_asks() -> None:
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda _: random_piece(), range(4_000)))
    assert len(set(given)) == len(given)
    assert {len(piece) for piece in given} == {16}


def test_ids_are_random_uuids() -> None:
    made = [random_id() for _ in range(600)]
    assert len(set(made)) == len(made)
    assert {(one.version, one.variant) for one in made} == {(4, "specified in RFC 4122")}


def test_a_forked_process_draws_its_own() -> None:
    random_piece()  # something is left of a draw
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, random_piece())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    theirs = os.read(read, 16)
    os.close(read)
    assert theirs not in {random_piece() for _ in range(300)}
