"""The breaker opens after failures in a row, rests, and lets one request try."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from serving.inference.breaker import Breaker, BreakerSettings


def test_it_opens_rests_and_closes_again() -> None:
    now = [100.0]
    breaker = Breaker(BreakerSettings(failures=3, cool_off_s=5), lambda: now[0])
    for _ in range(2):
        assert breaker.allows()
        breaker.failed()
    breaker.succeeded()  # in a row is what counts
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert not breaker.allows()
    now[0] += 4.9
    assert not breaker.allows()
    now[0] += 0.2
    assert breaker.allows()
    assert not breaker.allows()  # one at a time
    breaker.failed()
    assert not breaker.allows()
    now[0] += 5.1
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()


def test_a_withdrawn_question_lets_the_next_one_try() -> None:
    now = [0.0]
    breaker = Breaker(BreakerSettings(failures=1, cool_off_s=1), lambda: now[0])
    breaker.failed()
    now[0] = 2.0
    assert breaker.allows()
    breaker.abandoned()
    assert breaker.is_open
    assert breaker.allows()


def test_lateness_in_a_crowd_counts_only_when_nobody_is_answered() -> None:
    now = [100.0]
    breaker = Breaker(BreakerSettings(failures=2, cool_off_s=5), lambda: now[0])
    for _ in range(10):
        assert breaker.allows()
        breaker.late(50, crowded=True)
        now[0] += 1
        breaker.succeeded()
    now[0] += 5
    for _ in range(2):
        assert breaker.allows()
        breaker.late(50, crowded=True)
    assert breaker.is_open


def test_of_two_threads_that_ask_in_the_same_moment_one_tries() -> None:
    both = threading.Barrier(2)

    def looks_at_the_clock() -> float:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # until the other one looks at it as well, if it gets that far
        return 100.0

    breaker = Breaker(BreakerSettings(failures=1, cool_off_s=5), lambda: 0.0)
    breaker.failed()
    breaker._monotonic = looks_at_the_clock
    with ThreadPoolExecutor(2) as pool:
        allowed = [pool.submit(breaker.allows) for _ in range(2)]
        assert sorted(one.result() for one in allowed) == [False, True]


def test_one_that_closes_while_somebody_waits_for_it_lets_everybody_ask() -> None:
    breaker = Breaker(BreakerSettings(failures=1, cool_off_s=5), lambda: 0.0)
    breaker.failed()
    with ThreadPoolExecutor(1) as pool:
        with breaker._lock:
            waiting = pool.submit(breaker.allows)
            breaker._failures = 0
        assert waiting.result()
