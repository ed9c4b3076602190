"""Weights that are learned come near those that the choices were drawn from."""

import numpy as np
import pytest

from contract.choices import Option
from contract.errors import UserError
from contract.events import EventContext
from training.choices.examples import Choice
from training.choices.fit import chosen, fit
from training.choices.table import Popularity, gain, judged

OPTIONS = (Option("card"), Option("invoice"), Option("wallet"))


def drawn(size: int, seed: int, *, loyal: float = 0.0) -> list[Choice]:
    """In the north half pay by invoice, elsewhere card is usual; on mobiles the wallet. A `loyal`
    shopper takes what they took first."""
    rng, found, first = np.random.default_rng(seed), list[Choice](), dict[int, int]()
    own: dict[int, dict[str, float]] = {}
    for _ in range(size):
        who, north, mobile = int(rng.integers(60)), rng.random() < 0.5, rng.random() < 0.5
        shares = np.array([0.2, 0.5, 0.1] if north else [0.7, 0.1, 0.1])
        shares[2] *= 4 if mobile else 1
        taken = int(rng.choice(3, p=shares / shares.sum()))
        if who in first and rng.random() < loyal:
            taken = first[who]
        first.setdefault(who, taken)
        context = EventContext(
            region="north" if north else "south", device="mobile" if mobile else "desktop"
        )
        held = own.setdefault(who, {})
        found.append(Choice(OPTIONS, taken, context, 2_000, str(who), dict(held)))
        name = OPTIONS[taken].id
        held[name] = held.get(name, 0.0) + 1.0
    return found


def test_the_shares_of_places_and_devices_are_found_again() -> None:
    weights = fit(drawn(6_000, seed=1), penalty=1.0, pseudo_counts=1.0)
    north = EventContext(region="north", device="desktop")
    assert weights.usual(OPTIONS, north, 2_000) == pytest.approx(
        np.array([0.2, 0.5, 0.1]) / 0.8, abs=0.05
    )
    south = EventContext(region="south", device="mobile")
    assert weights.usual(OPTIONS, south, 2_000) == pytest.approx(
        np.array([0.7, 0.1, 0.4]) / 1.2, abs=0.05
    )


def test_a_region_of_which_little_is_known_chooses_as_all_do() -> None:
    most = drawn(3_000, seed=2)
    rare = Choice(OPTIONS, 2, EventContext(region="islet"), 2_000, "x", {})
    weights = fit([*most, rare], penalty=10.0, pseudo_counts=1.0)
    everywhere = weights.usual(OPTIONS, EventContext(), 2_000)
    assert weights.usual(OPTIONS, EventContext(region="islet"), 2_000) == pytest.approx(
        everywhere, abs=0.05
    )


def test_loyal_shoppers_own_choices_count_more() -> None:
    fickle, loyal = drawn(3_000, seed=3), drawn(3_000, seed=3, loyal=0.9)
    assert chosen(loyal[:2_000], loyal[2_000:])[1] < chosen(fickle[:2_000], fickle[2_000:])[1]


def test_what_is_judged_beats_popularity_where_there_is_something_to_know() -> None:
    found = judged(drawn(4_000, seed=4, loyal=0.8))
    mean, low, high = gain(found, seed=0)
    assert 0 < low < mean < high
    assert found.first["tillwise"].mean() > found.first["popularity"].mean()


def test_popularity_is_of_the_region() -> None:
    usual = Popularity(drawn(4_000, seed=5))
    north = Choice(OPTIONS, 0, EventContext(region="north"), 1, "x", {})
    assert OPTIONS[int(usual(north).argmax())].id == "invoice"
    nowhere = Choice(OPTIONS, 0, EventContext(), 1, "x", {})
    assert OPTIONS[int(usual(nowhere).argmax())].id == "card"


def test_too_few_choices_are_no_figures() -> None:
    with pytest.raises(UserError, match="too few"):
        judged(drawn(50, seed=6))
