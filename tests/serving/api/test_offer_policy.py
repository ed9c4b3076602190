"""Offers that a release's uplift network picks: the one that is worth its price, or none."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import UserError
from contract.manifest import OFFER_ARMS, ReleaseManifest, sha256
from contract.offer_arms import Arm, OfferArms
from contract.offer_features import OFFER_FEATURES, Vector
from contract.offers import AmountOff, PercentOff
from serving.inference.releases import load_release
from tests.serving.api.test_offers import CART, TEN, VALUE, offered, put
from tests.serving.conftest import ALL, Running, Start
from tests.serving.release_factory import Factory

ARMS = OfferArms(
    arms=(
        Arm(name="ten", discount=PercentOff(percent=10)),
        Arm(name="five-hundred", discount=AmountOff(amount=500)),
    )
).of_this_version()
PERCENT = TEN | {"unconditional": False}
AMOUNT = PERCENT | {"offer_id": "amount", "discount": {"kind": "amount", "amount": 600}}
RATE = 0.4
MARGIN = 600 * 2 + 799  # of each line the whole cents of 40 %


async def gateway(start: Start, folder: Path, *chances: float) -> Running:
    """One whose network expects these chances of a purchase: with no offer, and with each arm."""
    factory = Factory(folder / "release", uplift=(ARMS, chances))
    factory.write()
    return await start(releases=factory.releases_dir, models=factory.models_dir)


async def record(running: Running) -> Any:
    await running.quiet()
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    return event.decision["offers"]


async def test_the_offer_that_brings_most_is_shown_and_on_record(
    start: Start, tmp_path: Path
) -> None:
    running = await gateway(start, tmp_path, 0.3, 0.5, 0.5)
    await put(running, PERCENT, AMOUNT, margin_rate=RATE)
    decision = await offered(running)
    assert [one["offer_id"] for one in decision["offers"]] == ["ten"]
    assert decision["offers"][0]["reasons"][0]["code"] == "for_this_checkout"
    said = await record(running)
    assert said["policy"] == "uplift"
    arms = {arm["offer_id"]: arm for arm in said["arms"]}
    assert arms["ten"]["expected_gain"] == pytest.approx(0.5 * (MARGIN - 499) - 0.3 * MARGIN)
    assert arms["amount"]["expected_gain"] == pytest.approx(0.5 * (MARGIN - 600) - 0.3 * MARGIN)
    assert (arms["ten"]["propensity"], arms["amount"]["propensity"]) == (1.0, 0.0)
    assert said["no_offer_propensity"] == 0.0


async def test_the_engine_asks_for_those_under_way_at_once(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision without recommendations never meets the engine; it hears the same."""
    running = await gateway(start, tmp_path, 0.3, 0.5, 0.5)
    await put(running, PERCENT, AMOUNT, margin_rate=RATE)
    judge = running.gateway.live.current.offer_judge
    assert judge is not None
    ask, batches = judge.chances, list[tuple[str, int]]()

    def chances(asked: Sequence[tuple[Vector, int]]) -> list[list[float]]:
        batches.append((threading.current_thread().name, len(asked)))
        return ask(asked)

    monkeypatch.setattr(judge, "chances", chances)
    together = await asyncio.gather(*(offered(running, deadline_ms=1_000) for _ in range(6)))
    assert {one["offers"][0]["offer_id"] for one in together} == {"ten"}
    assert sum(size for _, size in batches) == 6
    assert {name for name, _ in batches} == {"engine"}
    batches.clear()
    alone = await offered(running, placements=["offers"])
    assert alone["offers"][0]["offer_id"] == "ten"
    assert [size for _, size in batches] == [1]
    assert batches[0][0] != "engine"
    some = [(np.full(len(OFFER_FEATURES), one, np.float32), 100) for one in (0, 1, 2)]
    assert ask(some) == [ask([one])[0] for one in some]


async def test_what_the_engine_could_not_ask_is_asked_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await gateway(start, tmp_path, 0.3, 0.5, 0.5)
    await put(running, PERCENT, margin_rate=RATE)
    judge = running.gateway.live.current.offer_judge
    assert judge is not None
    ask = judge.chances

    def chances(asked: Sequence[tuple[Vector, int]]) -> list[list[float]]:
        if threading.current_thread().name == "engine":
            raise RuntimeError("broken")
        return ask(asked)

    monkeypatch.setattr(judge, "chances", chances)
    decision = await offered(running)
    assert [one["offer_id"] for one in decision["offers"]] == ["ten"]
    assert decision["degraded"] == []


async def test_support_is_told_why_an_offer_was_made(start: Start, tmp_path: Path) -> None:
    running = await gateway(start, tmp_path, 0.3, 0.5, 0.5)
    await put(running, PERCENT, AMOUNT, margin_rate=RATE)
    decision = await offered(running)
    await running.quiet()
    path = f"/v1/decisions/{decision['decision_id']}/explanation"
    (said,) = (await running.client.get(path, headers=running.bearer("admin"))).json()["offers"]
    assert said["offer_id"] == "ten"
    assert said["reasons"] == decision["offers"][0]["reasons"]
    assert said["propensity"] == 1.0
    assert said["expected_gain"] > 0
    (said,) = (await running.client.get(path, headers=running.bearer())).json()["offers"]
    assert said["propensity"] is said["expected_gain"] is None


@pytest.mark.parametrize("network", [True, False])
async def test_what_chance_shows_is_said_to_be_chance(
    start: Start, tmp_path: Path, network: bool
) -> None:
    running = await gateway(start, tmp_path, 0.9, 0.9, 0.9) if network else await start()
    await put(running, PERCENT, margin_rate=RATE, explore_share=1)
    for n in range(20):
        decision = await offered(running, visitor_id=f"visitor-{n}")
        if decision["offers"]:
            break
    await running.quiet()
    (reason,) = decision["offers"][0]["reasons"]
    assert reason == {"code": "by_chance", "text": "One of the shop's offers, drawn by chance."}
    path = f"/v1/decisions/{decision['decision_id']}/explanation"
    (said,) = (await running.client.get(path, headers=running.bearer("admin"))).json()["offers"]
    assert said["reasons"] == [reason]


async def test_nothing_is_shown_to_who_would_buy_anyway(start: Start, tmp_path: Path) -> None:
    # However likely the purchase is, the offer adds too little to it.
    running = await gateway(start, tmp_path, 0.90, 0.95, 0.95)
    await put(running, PERCENT, AMOUNT, margin_rate=RATE)
    assert (await offered(running))["offers"] == []
    said = await record(running)
    assert (said["policy"], said["no_offer_propensity"]) == ("uplift", 1.0)


async def test_a_region_is_raised_to_its_floor(start: Start, tmp_path: Path) -> None:
    running = await gateway(start, tmp_path, 0.90, 0.95, 0.95)
    book = {"margin_rate": RATE, "region_bonus": {"north": 400}}
    loses = 0.95 * (MARGIN - 499) - 0.90 * MARGIN
    assert -400 < loses < 0
    await put(running, PERCENT, **book)
    south = await offered(running, context={"region": "south"})
    nowhere = await offered(running)
    north = await offered(running, context={"region": "north"})
    assert (south["offers"], nowhere["offers"]) == ([], [])
    assert [one["offer_id"] for one in north["offers"]] == ["ten"]
    await running.quiet()
    (arm,) = [
        one
        for event in running.logged()
        if event.event_name == "decision"
        for one in event.decision["offers"]["arms"]
        if one["shown"]
    ]
    assert arm["propensity"] == 1.0
    assert arm["expected_gain"] == pytest.approx(loses)  # told as it is


@pytest.mark.parametrize(
    "changed",
    [
        {"consent": ALL | {"offers": False}},
        {"consent": ALL | {"personalization": False}},
        {"gpc": True},
        {"cart": CART | {"items": [{"item_id": "item-1", "quantity": 1}]}},
    ],
)
async def test_nobody_is_judged_without_consent_or_prices(
    start: Start, tmp_path: Path, changed: dict[str, Any]
) -> None:
    running = await gateway(start, tmp_path, 0.1, 0.9, 0.9)
    await put(running, PERCENT, margin_rate=RATE)
    assert (await offered(running, **changed))["offers"] == []


async def test_an_offer_unlike_any_arm_and_a_cart_without_margin_are_not_judged(
    start: Start, tmp_path: Path
) -> None:
    running = await gateway(start, tmp_path, 0.1, 0.9, 0.9)
    await put(running, PERCENT | {"discount": {"kind": "percent", "percent": 50}}, margin_rate=RATE)
    assert (await offered(running))["offers"] == []
    await put(running, PERCENT)  # neither costs nor a usual rate are known
    assert (await offered(running))["offers"] == []


async def test_what_is_given_to_all_who_qualify_comes_before(start: Start, tmp_path: Path) -> None:
    running = await gateway(start, tmp_path, 0.1, 0.9, 0.9)
    await put(running, AMOUNT, TEN, margin_rate=RATE)
    decision = await offered(running)
    assert [one["offer_id"] for one in decision["offers"]] == ["ten"]
    assert decision["offers"][0]["reasons"][0]["code"] == "qualifies"


async def test_exploring_and_holding_out_are_exact_shares(start: Start, tmp_path: Path) -> None:
    running = await gateway(start, tmp_path, 0.3, 0.5, 0.5)
    await put(running, PERCENT, AMOUNT, margin_rate=RATE, holdout_share=0.2, explore_share=0.3)
    shown: list[str] = []
    for n in range(120):
        decision = await offered(running, visitor_id=f"visitor-{n}")
        shown += [one["offer_id"] for one in decision["offers"]] or ["none"]
    await running.quiet()
    said = [e.decision["offers"] for e in running.logged() if e.event_name == "decision"]
    for one in said:
        arms = {arm["offer_id"]: arm["propensity"] for arm in one["arms"]}
        assert arms == pytest.approx({"ten": 0.5 + 0.1, "amount": 0.1})
        assert one["no_offer_propensity"] == pytest.approx(0.2 + 0.1)
    assert sum(one["holdout"] for one in said) == pytest.approx(24, abs=14)
    assert shown.count("ten") == pytest.approx(72, abs=20)
    assert 1 <= shown.count("amount") <= 30


@pytest.mark.parametrize("feature_hash", ["0" * 64, ""])
async def test_a_release_is_as_good_without_a_network_of_other_features(
    start: Start, tmp_path: Path, feature_hash: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One of an earlier version says no hash at all."""
    older = ARMS.model_copy(update={"features_version": 2, "feature_hash": feature_hash})
    factory = Factory(tmp_path / "release", uplift=(older, (0.3, 0.5, 0.5)))
    factory.write()
    running = await start(releases=factory.releases_dir, models=factory.models_dir)
    assert "its uplift network was trained on other offer features" in caplog.text
    await put(running, PERCENT, AMOUNT, margin_rate=RATE)
    decision = await offered(running)
    assert decision["recommendations"]
    assert decision["offers"] == []


def test_a_network_whose_arms_say_otherwise_or_of_another_size_is_refused(tmp_path: Path) -> None:
    other = Factory(tmp_path / "other", uplift=(ARMS, (0.1, 0.2, 0.3)))
    release_id = other.write()
    described = other.releases_dir / release_id / "manifest.json"
    older = ARMS.model_copy(update={"features_version": 2, "feature_hash": "0" * 64})
    content = older.model_dump_json().encode()
    (described.parent / OFFER_ARMS).write_bytes(content)
    manifest = ReleaseManifest.model_validate_json(described.read_bytes())
    files = manifest.files | {OFFER_ARMS: sha256(content)}
    described.write_bytes(manifest.model_copy(update={"files": files}).sealed().as_bytes())
    with pytest.raises(UserError, match=r"offer_arms\.json: learned from offer features 2"):
        load_release(other.releases_dir, other.models_dir, release_id)
    small = Factory(tmp_path / "small", uplift=(ARMS, (0.1, 0.2)))
    with pytest.raises(UserError, match="answers for 1 arms, not 2"):
        load_release(small.releases_dir, small.models_dir, small.write())


def test_no_checkout_waits_for_the_table_of_prices(tmp_path: Path) -> None:
    factory = Factory(tmp_path, uplift=(ARMS, (0.1, 0.2, 0.3)))
    release = load_release(factory.releases_dir, factory.models_dir, factory.write())
    assert "table" in vars(vars(release)["price_levels"])
    release.models.close()


def test_the_cart_is_worth_what_the_tests_say() -> None:
    assert sum(line["quantity"] * line["price"] for line in CART["items"]) == VALUE
