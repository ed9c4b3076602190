"""The guard says worse where it is worse, why, and hardly ever where it is not."""

from typing import Any

import numpy as np
import pytest

from serving.inference.guard import Guard, GuardLimits, Recent, Window, compare

LIMITS = GuardLimits(min_decisions=300)


def recent(seed: int, n: int = 600, **changed: Any) -> Recent:
    """Decisions of a sound release; `changed` columns in place of the usual ones."""
    draw = np.random.default_rng(seed)
    usual: dict[str, Any] = {
        "seconds": draw.lognormal(np.log(0.008), 0.4, n),
        "failed": draw.random(n) < 0.002,
        "full": draw.random(n) < 0.99,
        "lead": draw.gamma(3.0, 0.2, n),
    }
    return Recent(**(usual | changed))


def bad(base: Recent, trial: Recent) -> dict[str, str]:
    return {one.measure: one.reason for one in compare(base, trial, LIMITS) if one.bad}


def test_sound_releases_are_left_alone() -> None:
    """4,000 comparisons of equals: at four standard errors none is expected to be called worse."""
    assert [seed for seed in range(4_000) if bad(recent(seed), recent(seed + 10_000))] == []


@pytest.mark.parametrize(
    ("changed", "measure", "said"),
    [
        (
            {"failed": np.arange(600) % 20 == 0},
            "errors",
            "5.0% of its decisions had a failed stage",
        ),
        ({"full": np.arange(600) % 10 != 0}, "rung", "90.0% of its decisions were on rung full"),
        ({"seconds": np.where(np.arange(600) % 20 == 0, 0.06, 0.008)}, "latency", "p99 60.0 ms"),
        ({"lead": np.zeros(600)}, "score", "its scores drifted: PSI"),
        ({"lead": np.random.default_rng(5).gamma(3.0, 0.4, 600)}, "score", "median lead"),
    ],
)
def test_each_way_of_being_worse_is_named(changed: Any, measure: str, said: str) -> None:
    found = bad(recent(1), recent(2, **changed))
    assert list(found) == [measure]
    assert said in found[measure]


def test_a_difference_that_is_chance_or_does_not_matter_is_none() -> None:
    few = np.zeros(600, bool)
    few[:8] = True  # 1.3 % where 1 % may be: could be chance
    none = np.zeros(600, bool)
    assert not bad(recent(1, failed=none), recent(2, failed=few))
    many, base = np.zeros(16_000, bool), np.zeros(16_000, bool)
    many[:80] = True  # .5 %: surely more than none, and nobody minds
    assert not bad(recent(1, 16_000, failed=base), recent(2, 16_000, failed=many))
    slower = recent(1, 16_000)
    assert not bad(slower, recent(2, 16_000, seconds=slower.seconds * 1.2))


def test_better_is_never_worse() -> None:
    base = recent(1, failed=np.arange(600) % 3 == 0, full=np.arange(600) % 2 == 0)
    assert not bad(base, recent(2))


def test_too_few_decisions_say_nothing() -> None:
    broken = {"failed": np.ones(299, bool), "full": np.zeros(299, bool)}
    assert compare(recent(1), recent(2, 299, **broken), LIMITS) == []
    assert compare(recent(1, 299), recent(2, failed=np.ones(600, bool)), LIMITS) == []


def test_a_window_slides_and_is_bounded() -> None:
    window = Window(4)
    for n in range(6):
        window.add(float(n), n / 10, float(n), failed=n == 3, full=n != 4)
    kept = window.since(3.0)
    assert kept.lead.tolist() == [3.0, 4.0, 5.0]
    assert kept.failed.tolist() == [True, False, False]
    assert kept.full.tolist() == [True, False, True]
    assert window.since(0.0).lead.tolist() == [2.0, 3.0, 4.0, 5.0]
    assert len(window.since(9.0)) == 0


def test_a_promoted_release_is_compared_with_the_last_decisions_of_the_one_before() -> None:
    now = [1_000.0]
    guard = Guard(GuardLimits(min_decisions=50, window_s=100, watch_s=500), lambda: now[0])
    guard.follow("old", None)
    for _ in range(60):
        guard.add("old", 0.01, 1.0, failed=False, full=True)
    now[0] += 50
    guard.promoted("old", "new")
    guard.follow("new", None)
    guard.add("old", 0.01, 1.0, failed=True, full=False)  # the last one of the old: not kept
    for _ in range(60):
        guard.add("new", 0.01, 1.0, failed=True, full=True)
    now[0] += 90  # the old one's decisions are older than the window, and count all the same
    (errors,) = [one for one in guard.about_live("new") if one.bad]
    assert (errors.measure, errors.base, errors.trial) == ("errors", 0.0, 1.0)
    now[0] += 20
    assert guard.about_live("new") == []  # its own have left the window
    now[0] += 400
    assert not guard.watched("new")


def test_what_nobody_follows_is_forgotten() -> None:
    guard = Guard(GuardLimits(min_decisions=1))
    guard.follow("a", "b")
    guard.add("b", 0.01, 1.0, failed=True, full=True)
    guard.add("z", 0.01, 1.0, failed=True, full=True)
    guard.follow("a", None)
    guard.follow("a", "b")
    guard.add("a", 0.01, 1.0, failed=False, full=True)
    assert guard.about_candidate("a", "b") == []
