"""The simulator: same seed same bytes, valid events, consent, order, and a truth that is true."""

import hashlib
import json
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.errors import UserError
from contract.events import Event
from contract.frames import EVENT_SCHEMA
from tests.training.data.conftest import DEFAULT_WORLD, catalogue_of, item_row
from training.data.simulate.calendar import draw_starts
from training.data.simulate.draws import choose, cumulative
from training.data.simulate.run import simulate
from training.data.simulate.world import World, load_world
from training.data.storage import read_catalogue, read_events, read_parquet, write_catalogue

START = date(2026, 1, 5)
MONDAY = 0


def run(catalogue: Path, output: Path, world: Path = DEFAULT_WORLD, **changed: Any) -> Path:
    arguments: dict[str, Any] = {
        "num_shoppers": 400,
        "num_days": 14,
        "seed": 7,
        "start": START,
    } | changed
    simulate(catalogue, world, output, **arguments)
    return output


@dataclass(frozen=True)
class Simulated:
    """A finished simulation with its rows at hand."""

    folder: Path
    events: list[dict[str, Any]]
    sessions: dict[str, list[dict[str, Any]]]  # session_id -> its events in the order of time
    truth: dict[str, dict[str, Any]]  # session_id -> true row
    shoppers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def simulated(catalogue_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    folder = run(catalogue_file, tmp_path_factory.mktemp("simulated"))
    events = read_events(folder).to_pylist()
    sessions = defaultdict(list)
    for event in events:
        sessions[event["session_id"]].append(event)
    truth = read_parquet(folder / "truth" / "sessions.parquet").to_pylist()
    shoppers = read_parquet(folder / "truth" / "shoppers.parquet").to_pylist()
    by_id = {row["session_id"]: row for row in truth}
    return Simulated(folder, events, dict(sessions), by_id, shoppers)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_name"] for event in events]


def basket(event: dict[str, Any]) -> dict[str, int]:
    return {item["item_id"]: item["quantity"] for item in event["items"]}


def test_the_same_seed_gives_the_same_bytes(
    simulated: Simulated, catalogue_file: Path, tmp_path: Path
) -> None:
    assert digests(run(catalogue_file, tmp_path)) == digests(simulated.folder)


def test_another_seed_gives_other_events(
    simulated: Simulated, catalogue_file: Path, tmp_path: Path
) -> None:
    first, other = digests(simulated.folder), digests(run(catalogue_file, tmp_path, seed=8))
    assert {name for name in first if first[name] == other.get(name)} == {
        "catalogue.parquet",
        "offer_arms.json",
        "truth/README.txt",
    }


def test_rows_are_valid_events(simulated: Simulated) -> None:
    for row in random.Random(11).sample(simulated.events, 2000):
        assert Event.model_validate(row).synthetic


def test_every_kind_of_signal_occurs(simulated: Simulated) -> None:
    assert set(names(simulated.events)) == {
        "page_view",
        "view_item_list",
        "search",
        "view_item",
        "hover",
        "scroll",
        "page_dwell",
        "click",
        "select_item",
        "add_to_cart",
        "remove_from_cart",
        "view_cart",
        "begin_checkout",
        "add_shipping_info",
        "add_payment_info",
        "purchase",
    }


def test_every_file_says_that_it_is_synthetic(simulated: Simulated) -> None:
    assert all(event["synthetic"] for event in simulated.events)
    for path in simulated.folder.rglob("*.parquet"):
        key = b"events" if path.name == "catalogue.parquet" else b"synthetic"
        assert pq.read_metadata(path).metadata[key] in {b"true", b"synthetic"}, path
    truth = simulated.folder / "truth"
    assert json.loads((truth / "world.json").read_text())["synthetic"] is True
    assert "no model may read them" in (truth / "README.txt").read_text()


def test_the_catalogue_is_copied_as_it_was(simulated: Simulated, catalogue_file: Path) -> None:
    assert read_catalogue(simulated.folder).equals(read_catalogue(catalogue_file))


def test_events_know_nothing_of_the_truth(simulated: Simulated) -> None:
    for part in (simulated.folder / "events").iterdir():
        assert pq.read_schema(part).names == EVENT_SCHEMA.names


def test_only_available_items_with_a_price_are_seen(simulated: Simulated) -> None:
    seen = {item["item_id"] for event in simulated.events for item in event["items"]}
    assert len(seen) > 250
    assert not seen & {"item-0", "item-1"}


def test_without_consent_or_under_gpc_nothing_is_left(simulated: Simulated) -> None:
    silent = [
        row
        for row in simulated.shoppers
        if row["gpc"] or not (row["agrees_analytics"] or row["agrees_personalization"])
    ]
    assert len(silent) > 10
    assert all(row["subject_id"] is None for row in silent)
    left = {row["subject_id"] for row in simulated.shoppers} - {None}
    assert {event["subject_id"] for event in simulated.events} <= left
    subjects = read_parquet(simulated.folder / "subjects.parquet")
    assert set(subjects["subject_id"].to_pylist()) == left


def test_purposes_are_those_agreed_to(simulated: Simulated) -> None:
    agreed = {
        row["subject_id"]: [
            purpose
            for purpose in ("analytics", "offers", "personalization")
            if row[f"agrees_{purpose}"]
        ]
        for row in simulated.shoppers
    }
    assert all(event["purposes"] == agreed[event["subject_id"]] for event in simulated.events)


def test_without_personalization_words_and_region_are_left_out(simulated: Simulated) -> None:
    plain = [e for e in simulated.events if "personalization" not in e["purposes"]]
    assert len(plain) > 100
    assert "search" not in names(plain)
    assert {event["context"]["region"] for event in plain} == {None}


def test_time_only_moves_forward_within_a_session(simulated: Simulated) -> None:
    for events in simulated.sessions.values():
        times = [event["occurred_at"] for event in events]
        assert times == sorted(set(times))
        assert events[0]["event_name"] == "page_view"
        assert len({(e["subject_id"], e["context"]["device"]) for e in events}) == 1
    assert all(event["received_at"] > event["occurred_at"] for event in simulated.events)


def test_dwelling_takes_the_time_it_says(simulated: Simulated) -> None:
    for events in simulated.sessions.values():
        for before, event in pairwise(events):
            if event["event_name"] == "page_dwell":
                passed = event["occurred_at"] - before["occurred_at"]
                assert passed == timedelta(milliseconds=event["engagement_ms"])


def test_checkout_follows_its_order(simulated: Simulated) -> None:
    order = ["begin_checkout", "add_shipping_info", "add_payment_info", "purchase"]
    reached = set()
    for events in simulated.sessions.values():
        steps = [name for name in names(events) if name in order]
        assert steps == order[: len(steps)]
        reached.add(len(steps))
    assert reached == {0, 1, 2, 3, 4}


def test_what_is_bought_is_what_was_added_and_not_removed(simulated: Simulated) -> None:
    checked = 0
    for events in simulated.sessions.values():
        cart: dict[str, int] = defaultdict(int)
        for event in events:
            if event["event_name"] == "add_to_cart":
                (item,) = event["items"]
                cart[item["item_id"]] += item["quantity"]
            elif event["event_name"] == "remove_from_cart":
                assert all(cart.pop(item_id) == n for item_id, n in basket(event).items())
            elif event["event_name"] in {"begin_checkout", "purchase"}:
                assert basket(event) == cart
                checked += 1
    assert checked > 100


def test_values_are_sums_of_catalogue_prices(simulated: Simulated) -> None:
    price = {row["item_id"]: row["price"] for row in read_catalogue(simulated.folder).to_pylist()}
    for event in simulated.events:
        assert all(item["price"] == price[item["item_id"]] for item in event["items"])
        if event["value"] is not None:
            assert event["value"] == sum(i["price"] * i["quantity"] for i in event["items"])
            assert event["currency"] == "EUR"


def test_lists_show_what_is_then_selected(simulated: Simulated) -> None:
    for events in simulated.sessions.values():
        shown: dict[str, int] = {}
        for event in events:
            if event["event_name"] == "view_item_list":
                shown = {item["item_id"]: item["index"] for item in event["items"]}
                assert list(shown.values()) == list(range(len(event["items"])))
            elif event["event_name"] in {"select_item", "hover"}:
                (item,) = event["items"]
                assert shown[item["item_id"]] == item["index"]


def test_searches_use_the_words_of_the_items(simulated: Simulated) -> None:
    text = {row["item_id"]: row["text"] for row in read_catalogue(simulated.folder).to_pylist()}
    searches = 0
    for events in simulated.sessions.values():
        term = None
        for event in events:
            if event["event_name"] == "search":
                term, searches = event["search_term"], searches + 1
            elif event["event_name"] == "view_item" and term:
                assert set(term.split()) <= set(text[event["items"][0]["item_id"]].split())
                term = None
    assert searches > 100


def test_payment_belongs_to_the_region(simulated: Simulated) -> None:
    world = load_world(DEFAULT_WORLD)
    accepted = {home.timezone: set(home.payment_types) for home in world.regions}
    paid = [event for event in simulated.events if event["payment_type"]]
    assert {event["event_name"] for event in paid} == {"add_payment_info", "purchase"}
    assert all(e["payment_type"] in accepted[e["context"]["timezone"]] for e in paid)


def test_fingers_do_not_hover(simulated: Simulated) -> None:
    hovering = {e["context"]["device"] for e in simulated.events if e["event_name"] == "hover"}
    assert "desktop" in hovering
    assert "mobile" not in hovering


def test_the_truth_agrees_with_the_events(simulated: Simulated) -> None:
    assert set(simulated.truth) == set(simulated.sessions)
    for session_id, events in simulated.sessions.items():
        row, seen = simulated.truth[session_id], names(events)
        assert row["purchased"] == ("purchase" in seen)
        assert row["abandoned"] == ("add_to_cart" in seen and "purchase" not in seen)
        assert row["num_views"] == seen.count("view_item")
        if row["left_after"]:
            assert seen[-1] == row["left_after"]


def test_the_true_purchase_probability_is_calibrated(simulated: Simulated) -> None:
    rows = list(simulated.truth.values())
    p = np.array([row["purchase_probability"] for row in rows])
    bought = np.array([row["purchased"] for row in rows], float)
    for chosen in (p >= 0, p < np.median(p), p >= np.median(p)):
        spread = np.sqrt((p[chosen] * (1 - p[chosen])).sum())
        assert abs((bought - p)[chosen].sum()) < 4 * spread
    assert p.std() > 0.1


def test_those_who_watch_prices_add_cheap_items(
    catalogue_file: Path, world_content: dict[str, Any], tmp_path: Path
) -> None:
    for archetype in world_content["archetypes"].values():
        archetype["price_sensitivity"] = 3.0
    world = tmp_path / "world.json"
    world.write_text(json.dumps(world_content))
    viewed, added = [], []
    for row in read_events(run(catalogue_file, tmp_path / "out", world)).to_pylist():
        if row["event_name"] == "view_item":
            viewed.append(row["value"])
        elif row["event_name"] == "add_to_cart":
            added.append(row["items"][0]["price"])
    assert np.mean(added) < 0.8 * np.mean(viewed)


def test_local_hours_hold_across_zones_and_clock_changes(world_content: dict[str, Any]) -> None:
    world_content["rhythm"]["hours"] = [float(hour == 20) for hour in range(24)]
    world_content["rhythm"]["weekdays"] = [float(day == MONDAY) for day in range(7)]
    world = World.model_validate(world_content)
    region = np.arange(5000) % len(world.regions)
    # 60 days from March on: New York changes its clock on the 8th, Berlin on the 29th.
    start_us, _ = draw_starts(np.random.default_rng(3), world, date(2026, 3, 1), 60, region)
    for moment_us, code in zip(start_us.tolist(), region.tolist(), strict=True):
        zone = ZoneInfo(world.regions[code].timezone)
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).astimezone(
            zone
        )
        assert (local.hour, local.weekday()) == (20, MONDAY)


def test_choices_follow_their_weights() -> None:
    flat = cumulative([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    drawn = choose(np.random.default_rng(1), flat, 3, np.repeat([0, 1], 20_000))
    first = np.bincount(drawn[:20_000], minlength=3) / 20_000
    assert first[1] == 0
    assert first[2] == pytest.approx(3 / 4, abs=0.02)
    assert set(drawn[20_000:].tolist()) == {1}


def test_one_shopper_on_one_day_is_enough(catalogue_file: Path, tmp_path: Path) -> None:
    came = 0
    for seed in range(12):  # on most days the one shopper stays away
        with suppress(UserError):
            folder = run(catalogue_file, tmp_path, num_shoppers=1, num_days=1, seed=seed)
            came += 1
            assert len(read_events(folder, ["event_id"])) > 1
    assert came


def refusal(catalogue: Path, output: Path, world: Path = DEFAULT_WORLD, **changed: Any) -> str:
    with pytest.raises(UserError) as error:
        run(catalogue, output, world, **changed)
    assert not (output / "events").exists()
    return str(error.value)


def test_numbers_that_make_no_sense_are_refused(catalogue_file: Path, tmp_path: Path) -> None:
    assert "--shoppers must be at least 1" in refusal(catalogue_file, tmp_path, num_shoppers=0)
    assert "--days must be between 1" in refusal(catalogue_file, tmp_path, num_days=0)
    assert "--vary must not be negative" in refusal(catalogue_file, tmp_path, vary=-1)
    assert "--seed must not be negative" in refusal(catalogue_file, tmp_path, seed=-1)


def test_a_world_where_everyone_sends_gpc_has_no_events(
    catalogue_file: Path, world_content: dict[str, Any], tmp_path: Path
) -> None:
    world = tmp_path / "world.json"
    world.write_text(json.dumps(world_content | {"gpc_share": 1.0}))
    assert "nobody came who may be seen" in refusal(catalogue_file, tmp_path / "out", world)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"price": None}, "no available item with a price"),
        ({"regions": ["Atlantis"]}, "no available item with a price"),
        ({"item_id": "same"}, "an item_id twice"),
    ],
)
def test_a_catalogue_that_cannot_be_sold_is_refused(
    tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    write_catalogue(catalogue_of([item_row(n, **changed) for n in range(5)]), tmp_path)
    assert expected in refusal(tmp_path / "catalogue.parquet", tmp_path / "out")


def test_mixed_currencies_are_refused(tmp_path: Path) -> None:
    rows = [item_row(1), item_row(2, currency="USD")]
    write_catalogue(catalogue_of(rows), tmp_path)
    assert "mixes currencies: EUR, USD" in refusal(tmp_path, tmp_path / "out")


def test_a_file_that_is_no_catalogue_is_refused(simulated: Simulated, tmp_path: Path) -> None:
    file = simulated.folder / "subjects.parquet"
    assert "lacks the columns item_id" in refusal(file, tmp_path / "out")
    text = tmp_path / "notes.txt"
    text.write_text("no table")
    assert "not a readable Parquet file" in refusal(text, tmp_path / "out")


def test_an_empty_catalogue_is_refused(tmp_path: Path) -> None:
    write_catalogue(catalogue_of([]), tmp_path)
    assert "holds no rows" in refusal(tmp_path / "catalogue.parquet", tmp_path / "out")


def test_a_varied_world_is_simulated_and_told_with_the_truth(
    catalogue_file: Path, tmp_path: Path
) -> None:
    own, other = (
        run(catalogue_file, tmp_path / str(vary), num_shoppers=50, vary=vary) for vary in (None, 3)
    )
    told = [json.loads((out / "truth" / "world.json").read_text())["world"] for out in (own, other)]
    assert [world["name"] for world in told] == ["default", "default-3"]
    assert told[0]["offers"]["margin_rate"] != told[1]["offers"]["margin_rate"]
    file = tmp_path / "varied.json"
    file.write_text(json.dumps(told[1]))
    again = run(catalogue_file, tmp_path / "again", file, num_shoppers=50)
    assert read_events(again).equals(read_events(other))
