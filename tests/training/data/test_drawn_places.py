"""Drawn places from an export, with answers that a reader can redo."""

from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from tests.training.data.event_logs import write
from tests.training.data.test_logged_checkouts import END, purchase
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
