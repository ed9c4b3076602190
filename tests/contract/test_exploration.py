"""What is drawn into the last places, and with which chance."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.exploration import POOL, ExploreSettings, draw_slots

RELEVANCE = [1.0, 0.8, 0.6, 0.5, 0.4, 0.31, 0.29, 0.2]
FREE = [False] * 8
NEVER, ALWAYS = (0.99, 0.0), 0.0


def test_mostly_the_usual_list_is_shown() -> None:
    shown, slots = draw_slots(RELEVANCE, FREE, 3, ExploreSettings(0.1), [NEVER])
    assert shown == [0, 1, 2]
    # The pool of the last place: at least half of 0.6, so 0.6, 0.5, 0.4 and 0.31.
    assert slots[0].pool == (2, 3, 4, 5)
    assert slots[0].propensity == pytest.approx(0.9 + 0.1 / 4)


def test_sometimes_another_is() -> None:
    shown, slots = draw_slots(RELEVANCE, FREE, 3, ExploreSettings(0.1), [(ALWAYS, 0.6)])
    assert shown == [0, 1, 4]
    assert (slots[0].usual, slots[0].shown) == (2, 4)
    assert slots[0].propensity == pytest.approx(0.1 / 4)


def test_what_was_displaced_is_usual_at_the_next_place() -> None:
    settings = ExploreSettings(0.5, slots=2)
    shown, slots = draw_slots(RELEVANCE, FREE, 4, settings, [(ALWAYS, 0.3), NEVER])
    assert shown == [0, 1, 3, 2]
    assert [one.usual for one in slots] == [2, 2]


def test_what_rules_put_there_stays() -> None:
    fixed = [False, False, True, False, True, False, False, False]
    settings = ExploreSettings(1.0, slots=3)
    for which in np.linspace(0, 0.99, 25).tolist():
        shown, slots = draw_slots(RELEVANCE, fixed, 4, settings, [(ALWAYS, which)] * 3)
        assert shown[2] == 2
        assert 4 not in shown
        assert all(not fixed[at] for one in slots for at in one.pool)


def test_the_first_place_is_never_drawn() -> None:
    settings = ExploreSettings(1.0, slots=9, most_loss=1.0)
    assert draw_slots(RELEVANCE, FREE, 2, settings, [(0.0, 0.9)] * 9)[0][0] == 0
    assert draw_slots(RELEVANCE, FREE, 1, settings, [(0.0, 0.9)]) == ([0], [])
    assert draw_slots([], [], 5, settings, [(0.0, 0.9)]) == ([], [])


def test_frequencies_are_the_chances_on_record() -> None:
    rng, settings = np.random.default_rng(0), ExploreSettings(0.4, slots=2)
    seen: Counter[tuple[int, ...]] = Counter()
    said: dict[tuple[int, ...], float] = {}
    rounds = 20_000
    for draws in rng.random((rounds, 2, 2)).tolist():
        shown, slots = draw_slots(RELEVANCE, FREE, 4, settings, draws)
        seen[tuple(shown)] += 1
        said[tuple(shown)] = float(np.prod([one.propensity for one in slots]))
    assert sum(said.values()) == pytest.approx(1.0)
    for shown_, chance in said.items():
        error = np.sqrt(chance * (1 - chance) / rounds)
        assert abs(seen[shown_] / rounds - chance) < 5 * error


@given(
    relevance=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    num_shown=st.integers(1, 5),
    share=st.floats(0.01, 1),
    slots=st.integers(1, 6),
    most_loss=st.floats(0, 1),
    draws=st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), min_size=6, max_size=6),
    data=st.data(),
)
def test_lists_stay_lists(
    relevance: list[float],
    num_shown: int,
    share: float,
    slots: int,
    most_loss: float,
    draws: list[tuple[float, float]],
    data: st.DataObject,
) -> None:
    relevance = sorted(relevance, reverse=True)
    size = len(relevance)
    fixed = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    settings = ExploreSettings(share, slots, most_loss)
    shown, drawn = draw_slots(relevance, fixed, num_shown, settings, draws)
    assert len(set(shown)) == len(shown) == min(num_shown, size)
    assert shown[0] == 0
    for one in drawn:
        assert one.shown in one.pool
        assert len(one.pool) <= POOL
        assert 0 < one.propensity <= 1 + 1e-12
        assert relevance[one.shown] >= (1 - most_loss) * relevance[one.usual]


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"most_loss": -0.1}, {"slots": 0}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="explore_"):
        ExploreSettings(**wrong)  # type: ignore[arg-type]
