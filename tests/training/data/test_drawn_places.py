"""Drawn places from an export, with answers that a reader can redo."""

from pathlib import Path
from typing import Any

import pytest

from contract.clock import to_us
from contract.errors import UserError
from contract.off_policy import MOST_WEIGHT
from tests.training.data.event_logs import write
from tests.training.data.test_logged_checkouts import END, NOON, purchase
from tests.training.data.test_logged_checkouts import decision as decided
from training.data.drawn_places import read_drawn_places
from training.evaluation.places import place_figures, place_logs


def drawn(name: str, shown: str, *, share: float = 0.4, hours: float = 0.0) -> dict[str, Any]:
    """A decision whose third place shows one of `eggs` (usual), `milk`, `tea` and `jam`."""
    chance = share / 4 + (1 - share) * (shown == "eggs")
    listed = [("bread", 1.0), ("salt", 1.0), (shown, chance)]
    return decided(
        name,
        hours=hours,
        body={
            "shown": [{"item_id": one, "propensity": p} for one, p in listed],
            "exploration": {
                "share": share,
                "slots": [{"index": 2, "usual": "eggs", "pool": ["eggs", "milk", "tea", "jam"]}],
            },
        },
    )


def test_what_was_drawn_how_likely_and_what_came_of_it(tmp_path: Path) -> None:
    data = write(
        tmp_path,
        [
            *(drawn("a", "eggs"), purchase("a", "eggs", "bread")),
            *(drawn("b", "tea"), purchase("b", "bread")),
            *(drawn("c", "jam"), purchase("c", "jam", hours=30)),  # another day, same session
            drawn("late", "jam", hours=49.0),
            decided("plain"),
            END,
        ],
    )
    found = read_drawn_places(data)
    assert found.item_id == ["eggs", "tea", "jam"]
    assert found.place.tolist() == [2, 2, 2]
    assert found.usual.tolist() == [True, False, False]
    assert found.propensity.tolist() == pytest.approx([0.7, 0.1, 0.1])
    assert found.usual_propensity.tolist() == pytest.approx([0.7] * 3)
    assert found.bought.tolist() == [1.0, 0.0, 1.0]
    mean = (1 / 0.7 + 10 + 10) / 3
    assert found.weight.tolist() == pytest.approx([1 / 0.7 / mean, 10 / mean, 10 / mean])


def test_what_was_known_of_the_checkout_and_when_what_came_of_it(tmp_path: Path) -> None:
    data = write(
        tmp_path,
        [
            *(drawn("a", "eggs"), purchase("a", "eggs", hours=30)),
            *(drawn("b", "tea", hours=1), purchase("b", "bread", hours=2)),
            purchase("c", "milk", hours=60),
        ],
    )
    found = read_drawn_places(data)
    assert found.cart == [("milk", "bread")] * 2
    assert found.could_be == [("eggs", "milk", "tea", "jam")] * 2
    assert found.subject == ["a", "b"]
    assert found.of(["b"]).item_id == ["tea"]
    noon = to_us(NOON)
    hours = [(us - noon) / 3_600_000_000 for us in found.bought_us.tolist()]
    assert hours == [30, 25]  # b's is known once its day is over
    told = {hour: found.known_at(noon + hour * 3_600_000_000).subject for hour in (23, 26, 31)}
    assert told == {23: [], 26: ["b"], 31: ["a", "b"]}


def test_no_chance_weighs_more_than_what_is_clipped(tmp_path: Path) -> None:
    data = write(tmp_path, [drawn("a", "eggs", share=0.02), drawn("b", "tea", share=0.02), END])
    often = 1 / (4 * (0.98 + 0.02 / 4))
    mean = (often + MOST_WEIGHT) / 2  # instead of 1 / (4 * .005) = 50
    assert read_drawn_places(data).weight.tolist() == pytest.approx([often / mean, 20 / mean])


def test_estimates_of_both_policies(tmp_path: Path) -> None:
    data = write(
        tmp_path,
        [drawn("a", "eggs"), purchase("a", "eggs"), drawn("b", "tea"), drawn("c", "eggs"), END],
    )
    found = read_drawn_places(data)
    logs = place_logs(found)
    # Always eggs: weights 1/.7, 0, 1/.7, of which the first bought. Any: .25/.7, .25/.1, .25/.7.
    assert logs["usual"].weight.tolist() == pytest.approx([1 / 0.7, 0, 1 / 0.7])
    assert logs["any of the pool"].weight.tolist() == pytest.approx([0.25 / 0.7, 2.5, 0.25 / 0.7])
    rows = {row["name"]: row["metrics"] for row in place_figures(found).rows}
    assert rows["usual/SNIPS"]["bought"]["mean"] == pytest.approx(0.5)
    assert rows["usual/IPS"]["bought"]["mean"] == pytest.approx(1 / 0.7 / 3)
    assert rows["any of the pool/IPS"]["bought"]["mean"] == pytest.approx(0.25 / 0.7 / 3)


def test_nothing_drawn_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path, [decided("a"), purchase("a", "eggs"), END])
    with pytest.raises(UserError, match="no place was drawn by chance"):
        read_drawn_places(data)
