"""The world file: what is refused, and that the message names the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from tests.training.data.conftest import DEFAULT_WORLD
from training.data.simulate.varied import varied
from training.data.simulate.world import load_world


def refusal(tmp_path: Path, content: Any) -> str:
    file = tmp_path / "world.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as error:
        load_world(file)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{file}: ")


def test_the_packaged_world_is_valid_and_spans_time_zones() -> None:
    world = load_world(DEFAULT_WORLD)
    assert len({region.timezone for region in world.regions}) >= 3
    assert {"desktop", "mobile", "tablet"} <= set(world.devices)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("regions", 1, "timezone"), "Mars/Olympus", "regions.1.timezone: "),
        (("regions", 0, "country"), "usa", "regions.0.country: "),
        (("archetypes", "loyalist", "remove_rate"), 1.5, "archetypes.loyalist.remove_rate: "),
        (("archetypes", "loyalist", "add_to_cart_rate"), 0, "archetypes.loyalist.add_to_cart_rate"),
        (("rhythm", "hours"), [1.0] * 23, "rhythm.hours: "),
        (("rhythm", "weekdays"), [0.0] * 7, "rhythm.weekdays: "),
        (("gpc_share",), "much", "gpc_share: "),
        (("devices", "fridge"), {"share": 1}, "devices.fridge"),
        (("items", "zipf_exponent"), None, "items.zipf_exponent: "),
        (("taste", "colour"), 1, "taste.colour: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path,
    world_content: dict[str, Any],
    path: tuple[Any, ...],
    value: Any,
    expected: str,
) -> None:
    part: Any = world_content
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    assert refusal(tmp_path, world_content).startswith(expected)


def test_a_missing_field_is_named(tmp_path: Path, world_content: dict[str, Any]) -> None:
    del world_content["delivery"]
    assert refusal(tmp_path, world_content) == "delivery: Field required"


def test_an_unknown_intent_is_named(tmp_path: Path, world_content: dict[str, Any]) -> None:
    world_content["archetypes"]["loyalist"]["intents"] = {"steal": 1.0}
    assert "archetypes.loyalist.intents: unknown intent 'steal'" in refusal(tmp_path, world_content)


def test_regions_nobody_lives_in_are_refused(tmp_path: Path, world_content: dict[str, Any]) -> None:
    for region in world_content["regions"]:
        region["share"] = 0
    assert "regions: at least one share must be above 0" in refusal(tmp_path, world_content)


def test_what_is_not_json_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, '{\n"name": nothing}').startswith("not JSON (Expecting value, line 2")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such world file"):
        load_world(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["default.json", "boutique.json"])
def test_a_varied_world_is_like_its_own_and_no_two_are_alike(name: str) -> None:
    world = load_world(DEFAULT_WORLD.with_name(name))
    one, again, other = varied(world, 7), varied(world, 7), varied(world, 8)
    assert one == again
    assert one.offers is not None
    assert world.offers is not None
    assert other.offers is not None
    assert len({w.offers.margin_rate for w in (world, one, other) if w.offers}) == 3
    for kind, shopper in world.archetypes.items():
        drawn = one.archetypes[kind]
        assert drawn.purchase_rate != shopper.purchase_rate
        assert drawn.visits_per_week != other.archetypes[kind].visits_per_week
        assert 0.2 < drawn.visits_per_week / shopper.visits_per_week < 5
        assert drawn.consent == shopper.consent
    assert one.offers.arms.keys() == world.offers.arms.keys()
    for arm in one.offers.arms.values():
        assert arm.odds.keys() == world.archetypes.keys()
    assert (one.regions, one.items, one.checkout) == (world.regions, world.items, world.checkout)


def test_what_is_certain_stays_so_in_a_varied_world(
    tmp_path: Path, world_content: dict[str, Any]
) -> None:
    del world_content["offers"]
    world_content["archetypes"]["loyalist"]["remove_rate"] = 0.0
    world_content["archetypes"]["loyalist"]["views_per_session"] = 1.0
    file = tmp_path / "world.json"
    file.write_text(json.dumps(world_content))
    for seed in range(5):
        world = varied(load_world(file), seed)
        assert world.offers is None
        assert world.archetypes["loyalist"].remove_rate == 0.0
        assert world.archetypes["loyalist"].views_per_session >= 1.0
