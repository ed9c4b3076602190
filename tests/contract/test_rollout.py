"""What is remembered of releases: every step leaves what the next one needs."""

from datetime import UTC, datetime

import pytest

from contract.rollout import Canary, Rollout

AT = datetime(2024, 5, 1, tzinfo=UTC)


def trial(release_id: str, percent: float = 10.0, *, shadow: bool = False) -> Canary:
    return Canary(release_id=release_id, percent=percent, shadow=shadow, started_at=AT)


def test_a_life_of_promotions_and_a_rollback() -> None:
    state = Rollout().promoted(None, "a", AT)
    assert state.previous("a") == ()
    state = state.promoted("a", "b", AT).promoted("b", "c", AT)
    assert state.previous("c") == ("b", "a")
    state = state.taken_back("c", "too slow", AT, "c")
    assert state.promoted_at is None
    assert state.previous("b") == ("a",)
    told = state.rollback_of("c")
    assert told is not None
    assert told.reason == "too slow"
    assert state.promoted("b", "d", AT).previous("d") == ("b", "a")
    again = state.promoted("b", "c", AT)  # by hand
    assert again.rollback_of("c") is None
    assert again.previous("c") == ("b", "a")


def test_the_last_good_is_the_latest_that_was_healthy_and_stands() -> None:
    state = Rollout().promoted("a", "b", AT).promoted("b", "c", AT).found_healthy("a")
    assert state.last_good("c") == ("a", "b")
    state = state.found_healthy("b").found_healthy("c")
    assert state.last_good("c") == ("b", "a")
    assert state.taken_back("b", "x", AT, "c").last_good("c") == ("a",)
    assert state.last_good(None) == ("c", "b", "a")


def test_a_canary_ends_with_a_promotion_and_with_its_own_rollback_only() -> None:
    state = Rollout().promoted("a", "b", AT).on_trial(trial("c"))
    assert state.taken_back("b", "x", AT, "b").canary == trial("c")
    gone = state.taken_back("c", "x", AT, "b")
    assert gone.canary is None
    assert gone.promoted_at == AT
    assert state.promoted("b", "c", AT).canary is None
    assert state.promoted("b", "d", AT).canary is None
    assert gone.on_trial(trial("c")).rollback_of("c") is None


def test_nothing_grows_without_end() -> None:
    state = Rollout()
    for n in range(100):
        state = state.promoted(f"r{n}", f"r{n + 1}", AT).found_healthy(f"r{n}")
        state = state.taken_back(f"x{n}", "y" * 1_000, AT, None)
    assert len(state.before) == len(state.healthy) == len(state.rolled_back) == 20
    assert state.before[-1] == "r99"
    assert len(state.as_bytes()) < 20_000


def test_it_is_read_as_it_was_written() -> None:
    state = Rollout().promoted("a", "b", AT).on_trial(trial("c", 2.5, shadow=True))
    assert Rollout.parse(state.as_bytes()) == state
    begun = state.about_to_name("b")
    assert Rollout.parse(begun.as_bytes()) == begun
    assert begun.about_to_name(None).as_bytes() == state.as_bytes()
    assert b"next_live" not in state.as_bytes()  # versions before it refuse what they do not know


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "content: Invalid JSON"),
        (b'{"format": 2}', "format"),
        (b'{"surprise": 1}', "surprise"),
        (b'{"before": ["../etc"]}', "before.0"),
        (
            b'{"canary": {"release_id": "a", "percent": 0, "started_at": "2024-05-01T00:00:00Z"}}',
            "canary.percent",
        ),
    ],
)
def test_what_is_malformed_is_named(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r"rollout\.json: " + said.replace(".", r"\.")):
        Rollout.parse(content)
