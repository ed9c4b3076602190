"""Lists that are more varied or leave more, and what that may cost in relevance."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.items import Floats, Indices
from contract.lists import ListSettings, choose, relevance

NONE = np.zeros(0, np.float32)


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def chosen(
    scores: Floats,
    settings: ListSettings,
    *,
    length: int = 5,
    vectors: Floats | None = None,
    categories: Indices | None = None,
    margins: Floats | None = None,
) -> list[int]:
    count = len(scores)
    places: list[int] = choose(
        scores,
        np.zeros((count, 2), np.float32) if vectors is None else vectors,
        np.zeros(count, np.int64) if categories is None else categories,
        np.zeros(count, np.float32) if margins is None else margins,
        length,
        settings,
    ).tolist()
    return places


def best_under(cap: int, scores: list[float], categories: list[int], length: int) -> list[int]:
    """The most relevant under the cap, then what it kept out: in plain Python, for comparison."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    count: Counter[int] = Counter()
    first: list[int] = []
    rest: list[int] = []
    for place in order:
        full = cap > 0 and categories[place] != 0 and count[categories[place]] >= cap
        (rest if full else first).append(place)
        count[categories[place]] += not full
    return (first + rest)[:length]


@st.composite
def lists(draw: st.DrawFn) -> dict[str, object]:
    count = draw(st.integers(0, 12))
    unit = st.floats(0, 1, width=32)

    def column(values: st.SearchStrategy[float]) -> Floats:
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), np.float32)

    numbers = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    vector = st.tuples(*[st.floats(-2, 2, width=32)] * 2)
    rows = draw(st.lists(vector, min_size=count, max_size=count))
    return {
        "scores": column(unit),
        "vectors": np.array(rows, np.float32).reshape(count, 2),
        "categories": np.array(draw(numbers), np.int64),
        "margins": column(st.floats(-500, 500, width=32)),
        "length": draw(st.integers(0, 12)),
        "settings": ListSettings(
            diversity=draw(unit),
            category_cap=draw(st.integers(0, 3)),
            margin=draw(unit),
            most_loss=draw(unit),
        ),
    }


@given(lists())
def test_every_place_keeps_its_share_of_relevance(drawn: dict[str, object]) -> None:
    scores, length, settings = drawn["scores"], drawn["length"], drawn["settings"]
    assert isinstance(scores, np.ndarray)
    assert isinstance(length, int)
    assert isinstance(settings, ListSettings)
    shown = chosen(**drawn)  # type: ignore[arg-type]
    kinds = drawn["categories"].tolist()  # type: ignore[attr-defined]
    usual = best_under(settings.category_cap, scores.tolist(), kinds, length)
    assert len(set(shown)) == len(shown) == min(length, len(scores))
    # Float32 numbers times a double: the product is exact enough for no slack but rounding.
    least = (1 - settings.most_loss) * scores[usual].astype(float)
    assert (scores[shown] >= least - 1e-12).all()
    # The same number of each category, up to where the cap gives way.
    count = Counter(kind for kind in (kinds[place] for place in shown) if kind)
    allowed = sum(
        min(number, settings.category_cap) if kind else number
        for kind, number in Counter(kinds).items()
    )
    if settings.category_cap and len(shown) <= allowed:
        assert all(number <= settings.category_cap for number in count.values())


@given(lists())
def test_a_longer_list_begins_with_the_shorter(drawn: dict[str, object]) -> None:
    shown = chosen(**drawn)  # type: ignore[arg-type]
    longer = chosen(**(drawn | {"length": 12}))  # type: ignore[arg-type]
    assert longer[: len(shown)] == shown


@given(lists())
def test_without_a_switch_it_is_the_order_of_the_scores(drawn: dict[str, object]) -> None:
    off = drawn | {"settings": ListSettings(most_loss=1.0)}
    scores = drawn["scores"]
    assert isinstance(scores, np.ndarray)
    order = np.argsort(-scores, kind="stable").tolist()
    assert chosen(**off) == order[: drawn["length"]]  # type: ignore[arg-type]


def test_of_two_alike_one_makes_room() -> None:
    scores = floats(1.0, 0.99, 0.95, 0.5)
    vectors = np.array([[1, 0], [2, 0], [0, 1], [0, -1]], np.float32)
    varied = ListSettings(diversity=0.5, most_loss=0.1)
    # After the first its like is worth .5 * 1 - .5 * 1 = 0, the third .5 * .95 / .99 - 0 = .48.
    assert chosen(scores, varied, vectors=vectors) == [0, 2, 1, 3]
    # .95 is not within 1 % of .99.
    strict = ListSettings(diversity=0.5, most_loss=0.01)
    assert chosen(scores, strict, vectors=vectors) == [0, 1, 2, 3]


def test_a_cap_leaves_no_place_empty() -> None:
    scores = floats(0.9, 0.8, 0.7, 0.6, 0.5)
    kinds = np.array([1, 1, 1, 2, 0])
    assert chosen(scores, ListSettings(category_cap=1), categories=kinds) == [0, 3, 4, 1, 2]
    assert chosen(scores, ListSettings(category_cap=2), categories=kinds) == [0, 1, 3, 4, 2]


def test_what_leaves_more_goes_first_within_the_bound() -> None:
    scores, margins = floats(1.0, 0.95, 0.92, 0.5), floats(10, 10, 60, 120)
    # The mean is 50: weighed with .1, a margin of 60 adds .12 and one of 10 adds .02.
    assert chosen(scores, ListSettings(margin=0.1), margins=margins) == [2, 0, 1, 3]
    # The dearest stays where it is: .5 is less than .9 of anything above it.
    assert chosen(scores, ListSettings(margin=1.0), margins=margins) == [2, 0, 1, 3]
    assert chosen(scores, ListSettings(margin=0.02), margins=margins) == [0, 1, 2, 3]


def test_relevance_is_the_chance_against_the_best() -> None:
    found = relevance(floats(3.0, 3.0 - np.log(2), 1.0))
    np.testing.assert_allclose(found, [1.0, 0.5, np.exp(-2)], rtol=1e-6)
    assert len(relevance(NONE)) == 0


@pytest.mark.parametrize(
    "wrong", [{"diversity": 1.1}, {"margin": -0.1}, {"most_loss": 2.0}, {"category_cap": -1}]
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ListSettings(**wrong)  # type: ignore[arg-type]
