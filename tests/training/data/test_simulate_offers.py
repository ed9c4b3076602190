"""Offers, payment and delivery in the simulator: randomised as logged, with effects as the world
file says, in a log that does not know them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from contract.errors import UserError
from tests.training.data.conftest import DEFAULT_WORLD
from tests.training.data.test_simulate import run
from training.data.checkouts import read_offer_log, read_true_probabilities
from training.data.offer_log import OfferLog
from training.data.simulate.draws import log_odds
from training.data.simulate.world import load_world
from training.data.storage import CHECKOUTS_FILE, CHECKOUTS_SCHEMA, read_events, read_parquet

BOUTIQUE = DEFAULT_WORLD.with_name("boutique.json")


@pytest.fixture(scope="module")
def folder(catalogue_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("offers")
    return run(catalogue_file, out, num_shoppers=1_500, num_days=28)


@pytest.fixture(scope="module")
def log(folder: Path) -> OfferLog:
    return read_offer_log(folder)


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = read_parquet(
        folder / CHECKOUTS_FILE, CHECKOUTS_SCHEMA
    ).to_pylist()
    return listed


def test_a_world_without_offers_is_as_it_was(
    catalogue_file: Path, world_content: dict[str, Any], tmp_path: Path
) -> None:
    del world_content["offers"], world_content["preferences"]
    world = tmp_path / "world.json"
    world.write_text(json.dumps(world_content))
    out = run(catalogue_file, tmp_path / "out", world)
    assert not (out / CHECKOUTS_FILE).exists()
    assert read_events(out)["coupon"].null_count == len(read_events(out))
    with pytest.raises(UserError, match="a world with offers"):
        read_offer_log(out)


def test_the_second_world_differs_and_works(catalogue_file: Path, tmp_path: Path) -> None:
    log = read_offer_log(run(catalogue_file, tmp_path, BOUTIQUE))
    assert log.arms == ("none", *load_world(BOUTIQUE).offers.arms)  # type: ignore[union-attr]
    assert set(log.arms) != {"none", *load_world(DEFAULT_WORLD).offers.arms}  # type: ignore[union-attr]


def test_arms_are_drawn_with_the_chances_that_are_logged(log: OfferLog) -> None:
    assert log.propensity.sum(1) == pytest.approx(1)
    assert log.propensity.std(0).max() > 0  # they differ by device
    drawn = np.bincount(log.arm, minlength=len(log.arms))
    spread = np.sqrt((log.propensity * (1 - log.propensity)).sum(0))
    assert (np.abs(drawn - log.propensity.sum(0)) < 4 * spread).all()


def test_outcomes_follow_the_true_chances_under_every_arm(folder: Path, log: OfferLog) -> None:
    truth = read_true_probabilities(folder)
    assert truth is not None
    for arm in range(len(log.arms)):
        got = log.arm == arm
        p = truth[got, arm]
        assert abs(log.outcome[got].sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_the_effect_is_that_of_the_world(
    catalogue_file: Path, world_content: dict[str, Any], tmp_path: Path
) -> None:
    """Without slopes an arm multiplies the odds by just what stands in the file."""
    world_content["offers"]["effect"] = {}
    world = tmp_path / "world.json"
    world.write_text(json.dumps(world_content))
    out = run(catalogue_file, tmp_path / "out", world)
    chances = read_true_probabilities(out)
    log = read_offer_log(out)
    assert chances is not None
    truth = read_parquet(out / "truth" / CHECKOUTS_FILE)["archetype"].to_pylist()
    decided = [row["arm"] is not None for row in read_parquet(out / CHECKOUTS_FILE).to_pylist()]
    kinds = [kind for kind, asked in zip(truth, decided, strict=True) if asked]
    arm = log.arms.index("percent_10")
    for kind, chance in zip(kinds, chances, strict=True):
        ratio = np.exp(log_odds(chance[arm]) - log_odds(chance[0]))
        assert ratio == pytest.approx(world_content["offers"]["arms"]["percent_10"]["odds"][kind])


def test_only_those_who_agreed_are_offered_something(
    folder: Path, rows: list[dict[str, Any]]
) -> None:
    people = read_parquet(folder / "truth" / "shoppers.parquet").to_pylist()
    agreed = {p["subject_id"] for p in people if p["agrees_offers"] and p["agrees_personalization"]}
    assert all((row["arm"] is not None) == (row["subject_id"] in agreed) for row in rows)
    assert any(row["arm"] is None for row in rows)


def test_the_log_and_the_events_tell_the_same(folder: Path, rows: list[dict[str, Any]]) -> None:
    events = read_events(folder)
    purchases = events.filter(pc.equal(events["event_name"], "purchase")).to_pylist()
    bought = {event["session_id"]: event for event in purchases}
    for row in rows:
        event = bought.get(row["session_id"])
        assert row["purchased"] == (event is not None)
        assert row["value"] == sum(item["price"] * item["quantity"] for item in row["items"])
        if event is not None:
            assert event["coupon"] == (None if row["arm"] == "none" else row["arm"])
            assert (event["value"], event["items"]) == (row["value"], row["items"])
            assert event["payment_type"] == row["payment_type"]
            assert event["shipping_tier"] == row["shipping_tier"]


def test_reductions_are_those_of_the_discounts(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["arm"] is not None:
            taken = dict(zip(row["arms"], row["reductions"], strict=True))
            assert taken["none"] == 0
            assert taken["percent_10"] == row["value"] // 10
            assert taken["amount_100"] == min(100, row["value"])
            assert taken["free_shipping"] == 399


def test_choices_are_among_what_was_offered(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["payment_type"] is None or row["payment_type"] in row["payment_methods"]
        ways = {option["id"] for option in row["shipping_options"]}
        assert row["shipping_tier"] is None or row["shipping_tier"] in ways


def test_choices_follow_their_true_chances(folder: Path, rows: list[dict[str, Any]]) -> None:
    truth = read_parquet(folder / "truth" / CHECKOUTS_FILE).to_pylist()
    for choice, options, chances in (
        ("payment_type", "payment_methods", "payment_probabilities"),
        ("shipping_tier", "shipping_options", "shipping_probabilities"),
    ):
        hits, expected, variance = 0.0, 0.0, 0.0
        for row, true in zip(rows, truth, strict=True):
            if row[choice] is None:
                continue
            names = [o["id"] if isinstance(o, dict) else o for o in row[options]]
            hits += row[choice] == names[0]
            expected += true[chances][0]
            variance += true[chances][0] * (1 - true[chances][0])
        assert abs(hits - expected) < 4 * np.sqrt(variance)


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        (("offers", "arms", "percent_5", "odds"), {"nobody": 1.0}, "unknown archetype 'nobody'"),
        (("offers", "arms", "percent_5", "share"), 0, "offers.arms.percent_5.share: "),
        (
            ("offers", "arms", "free_shipping", "discount", "shipping_ids"),
            ["rocket"],
            "unknown tier 'rocket'",
        ),
        (("preferences", "payments"), {"shells": {}}, "unknown payment 'shells'"),
        (("preferences", "deliveries"), {"rocket": {"days": 0}}, "unknown tier 'rocket'"),
    ],
)
def test_what_the_world_does_not_have_is_named(
    tmp_path: Path,
    world_content: dict[str, Any],
    part: tuple[str, ...],
    value: Any,
    expected: str,
) -> None:
    inside: Any = world_content
    for step in part[:-1]:
        inside = inside[step]
    inside[part[-1]] = value
    file = tmp_path / "world.json"
    file.write_text(json.dumps(world_content))
    with pytest.raises(UserError) as error:
        load_world(file)
    assert expected in str(error.value)
