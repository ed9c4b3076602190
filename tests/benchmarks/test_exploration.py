"""The simulated shop of `benchmarks.exploration`: what is logged is what was drawn, and shoppers
take what the world says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.exploration import _drawn, main
from benchmarks.exploration_fits import written
from benchmarks.exploration_world import (
    Shop,
    World,
    decision,
    item_id,
    purchase,
)
from contract.exploration import ExploreSettings
from training.data.drawn_places import read_drawn_places

SMALL = World(shoppers=40, items=60, categories=10)
EXPLORE = ExploreSettings(share=0.4, slots=2, most_loss=1.0)


def test_a_log_of_drawn_lists_is_read_as_it_was_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    shop = Shop(SMALL, rng)
    events, scores = list[dict[str, Any]](), np.linspace(1.0, 0.0, 12)
    bought: list[list[bool]] = []
    for visit in shop.visits(rng, 0):
        free = [item for item in range(60) if item not in visit.cart][:12]
        shown, told = _drawn(rng, free, scores, EXPLORE)
        taken = shop.taken(rng, visit, shown)
        events += [decision(visit, *told), purchase(visit, [*visit.cart, *taken])]
        bought.append([item_id(one) in {item_id(each) for each in taken} for one in shown[3:]])
    events.append(purchase(shop.visits(rng, 2)[-1], [1, 2]))  # so that all of it is known
    found = read_drawn_places(written(tmp_path, shop, events))
    assert found.place.tolist() == [3, 4] * len(bought)
    hit = np.concatenate(bought).astype(bool)
    assert (found.bought[hit] == 1).all()
    assert found.bought[~hit].mean() < 0.05  # came for it by themselves, within the day
    exact = 0.4 / found.pool + 0.6 * found.usual
    assert found.propensity.tolist() == pytest.approx(exact.tolist())
    assert 0.2 < 1 - found.usual.mean() < 0.5


def test_what_people_buy_anyway_they_do_not_take() -> None:
    shop = Shop(SMALL, np.random.default_rng(6))
    usual = Shop(
        World(shoppers=40, items=60, categories=10, staple_taken=1.0), np.random.default_rng(6)
    )
    kept = shop.chance(np.arange(40)) / usual.chance(np.arange(40))
    below = usual.chance(np.arange(40)) < 0.8  # where it is not cut off
    assert kept[shop.staple & below].tolist() == pytest.approx(
        [0.15] * int((shop.staple & below).sum())
    )
    assert (kept[~shop.staple] == 1).all()


def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0"]) == 2
    assert main(["--share", "0"]) == 2
    assert "nothing to judge" in capsys.readouterr().err
