"""Gates as pure functions: expected figures are arithmetic that a reader can redo."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.clock import DAY_US
from contract.errors import UserError
from contract.fairness import FairnessReport, Measure, audit
from contract.frames import EVENT_SCHEMA
from training.data.fresh_events import FreshEvents, fresh_events
from training.gates import operation
from training.gates.calibration import EDGES, Reliability, binned, calibration
from training.gates.data import data_health, purchases_by_day
from training.gates.drift import drift, samples, shoppers
from training.gates.fairness import offers, served
from training.gates.leakage import (
    feature_auc,
    frozen_before,
    jump,
    known_afterwards,
    live_jump,
    single_features,
)
from training.gates.limits import Limits, limits
from training.gates.operation import Floats, Timed
from training.gates.paired import paired
from training.gates.quality import quality, slices
from training.gates.verdict import Verdict
from training.retraining.groups import novelty

USUAL = Limits()
T = 1_000
SHOPPER = np.arange(T) // 2


def test_a_paired_difference_is_narrower_than_either_figure() -> None:
    rng = np.random.default_rng(0)
    champion = rng.random(T)
    found = paired(champion, champion + 0.01, SHOPPER)
    assert found.difference == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)
    noisy = paired(champion, rng.random(T), SHOPPER)
    assert noisy.low < noisy.difference < noisy.high
    # Two independent uniform figures differ with deviation sqrt(2/12); their mean with 1/sqrt(T) of
    # that, and 1.96 deviations lie on either side.
    assert noisy.high - noisy.low == pytest.approx(2 * 1.96 * (2 / 12 / T) ** 0.5, rel=0.15)
    with pytest.raises(ValueError, match="at least one"):
        paired(np.empty(0), np.empty(0), np.empty(0, np.int64))


def test_quality_must_be_shown_not_to_be_lost() -> None:
    rng = np.random.default_rng(1)
    champion = rng.random(T)
    better = np.clip(champion + rng.normal(0.02, 0.05, T), 0, 1)
    worse = np.clip(champion - rng.normal(0.05, 0.05, T), 0, 1)
    unsure = rng.random(T)  # the mean may be the same; with so much noise nobody knows
    assert quality(champion, better, SHOPPER, USUAL).passed
    refused = quality(champion, worse, SHOPPER, USUAL)
    assert not refused.passed
    assert "is not ruled out" in refused.reason
    assert not quality(champion, unsure, SHOPPER, USUAL).passed


def test_a_slice_is_refused_only_for_a_sure_and_large_loss() -> None:
    rng = np.random.default_rng(2)
    champion = rng.random(T)
    noise = rng.normal(0, 0.05, T)
    names = ("same", "lost", "hardly lost", "few")
    theirs = dict.fromkeys(names, champion) | {"few": champion[:50]}
    ours = {
        "same": champion + noise,
        "lost": champion * 0.8 + noise,
        "hardly lost": champion * 0.97 + noise,
        "few": champion[:50] * 0.5,
    }
    units = {name: SHOPPER[: len(values)] for name, values in theirs.items()}
    verdict, compared = slices(theirs, ours, units, USUAL)
    assert [check.name for check in verdict.checks if not check.passed] == ["lost"]
    assert compared["hardly lost"].high < 0  # sure, but less than may be lost
    assert "too few to judge" in next(c.said for c in verdict.checks if c.name == "few")


def test_calibration_of_bins_by_hand() -> None:
    promised, came, held = binned(np.array([0.5, 0.3, 0.15, 0.05]), np.array([1, 0, 1, 0], bool))
    assert promised.sum() == pytest.approx(1)
    assert came.sum() == pytest.approx(1)
    place = {p: int(np.searchsorted(EDGES, p, side="right") - 1) for p in (0.5, 0.3, 0.15, 0.05)}
    assert promised[place[0.3]] == pytest.approx(0.3)
    assert came[place[0.15]] == pytest.approx(1 / 2)
    assert held.sum() == 4
    told = Reliability(1, promised, came, held)
    # 0.5 came as promised; 0.3 + 0.05 too much, 0.5 - 0.15 too little: 0.35 in the wrong place.
    assert told.error == pytest.approx(0.35)
    good = Reliability(1, promised, promised, held)
    assert good.error == 0
    assert calibration(good, good, USUAL).passed
    assert not calibration(good, told, USUAL).passed


def _events(
    days: int, a_day: int, *, price: int = 200, first: datetime = datetime(2024, 1, 1, tzinfo=UTC)
) -> list[dict[str, object]]:
    from datetime import timedelta

    rng, rows = np.random.default_rng(3), []
    for day in range(days):
        for number in range(a_day):
            at = first + timedelta(days=day, seconds=int(rng.integers(8 * 3600, 20 * 3600)))
            rows.append(
                {
                    "event_id": f"{day}-{number}",
                    "event_name": "purchase",
                    "occurred_at": at,
                    "received_at": at,
                    "subject_id": f"s{int(rng.integers(0, 300))}",
                    "items": [
                        {"item_id": f"i{int(i)}", "price": price + int(i), "quantity": 1}
                        for i in rng.integers(0, 40, 4)
                    ],
                }
            )
    return rows


def _read(rows: list[dict[str, object]]) -> FreshEvents:
    table = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    return fresh_events(table, {f"i{number}" for number in range(40)})


FIRST_US = 1_704_067_200_000_000  # 2024-01-01


def _judged(rows: list[dict[str, object]]) -> Verdict:
    events = _read(rows)
    split = FIRST_US + 28 * DAY_US
    fresh = events.window(split, split + 7 * DAY_US)
    return data_health(fresh, events.window(FIRST_US, split), USUAL)


def test_data_health() -> None:
    usual = _events(35, 40)
    assert _judged(usual).passed
    assert purchases_by_day(_read(usual).window(FIRST_US, FIRST_US + 3 * DAY_US)).tolist() == [
        *(40, 40, 40)
    ]
    nothing = _judged(usual[: 28 * 40])
    assert "0 purchases" in nothing.reason
    half = [row for place, row in enumerate(usual) if place < 28 * 40 or place % 4 == 0]
    assert [c.name for c in _judged(half).checks if not c.passed][:2] == ["purchases", "volume"]
    for row in usual[-100:]:
        row["items"] = [{**one, "item_id": f"{one['item_id']}.0"} for one in row["items"]]  # type: ignore[attr-defined]
    foreign = _judged(usual)
    assert ".0'" in foreign.reason
    assert "not in the catalogue" in foreign.reason
    twice = _judged([*_events(35, 40), *_events(35, 40)[-60:]])
    assert [c.name for c in twice.checks if not c.passed] == ["duplicate events"]


def test_drift_finds_other_prices_and_other_hours_but_not_chance() -> None:
    from datetime import timedelta

    split = FIRST_US + 28 * DAY_US

    def judged(rows: list[dict[str, object]]) -> Verdict:
        events = _read(rows)
        before, fresh = events.window(FIRST_US, split), events.window(split, split + 7 * DAY_US)
        people = shoppers(events, before), shoppers(events, fresh)
        return drift(*samples(events, before, fresh), people, USUAL)

    assert judged(_events(35, 40)).passed
    later = datetime(2024, 1, 29, tzinfo=UTC)
    dear = judged([*_events(28, 40), *_events(7, 40, price=20_000, first=later)])
    assert "price of an item" in {c.name for c in dear.checks if not c.passed}
    night = [*_events(28, 40), *_events(7, 40, first=later - timedelta(hours=8))]
    assert "hour of the day" in {c.name for c in judged(night).checks if not c.passed}
    gone = judged(_events(28, 40))
    assert not gone.passed


def test_events_that_foretell_a_purchase_and_came_in_after_it() -> None:
    from datetime import timedelta

    rows = _events(35, 40)
    views = [
        {
            **row,
            "event_id": f"{row['event_id']}-view",
            "event_name": "view_item",
            "occurred_at": row["occurred_at"] - timedelta(seconds=5),  # type: ignore[operator]
            "received_at": row["received_at"] + timedelta(hours=2),  # type: ignore[operator]
        }
        for row in rows
    ]
    for told, passed in ((rows, True), ([*rows, *views], False)):
        events = _read(told)
        part = events.window(FIRST_US, FIRST_US + 35 * DAY_US)
        assert known_afterwards(events, part, USUAL).passed is passed
    for view in views:  # received as they happened: people do look at what they buy
        view["received_at"] = view["occurred_at"]
    events = _read([*rows, *views])
    part = events.window(FIRST_US, FIRST_US + 35 * DAY_US)
    assert known_afterwards(events, part, USUAL).value == 0


def test_the_area_under_the_curve_of_each_feature() -> None:
    values = np.array([[3.0, 1.0, 0.0], [2.0, 1.0, 5.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    area = feature_auc(values, np.array([1, 0, 1, 0], bool))
    # Of the 2 x 2 pairs of a relevant and another: 3 > 2, 3 > 0, 1 > 0, not 1 > 2.
    assert area[0] == pytest.approx(3 / 4)
    assert area[1] == pytest.approx(1 / 2)  # all tied
    assert area[2] == pytest.approx((0 + 0.5 + 0 + 1) / 4)
    assert single_features({"fine": 0.9, "other": 0.2}, USUAL).passed
    refused = single_features({"fine": 0.9, "told": 0.001}, USUAL)
    assert not refused.passed  # below a half is as telling as above
    assert "told" in refused.said


def test_other_signs_of_leakage() -> None:
    seen, start = datetime(2024, 5, 2, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)
    assert not frozen_before("champion", seen, start).passed
    assert frozen_before("champion", start, start).passed
    assert jump(0.20, 0.28, USUAL).passed
    assert not jump(0.20, 0.31, USUAL).passed
    assert live_jump(0.2, 0.3, USUAL).passed
    assert not live_jump(0.2, 0.5, USUAL).passed


def test_parity_and_latency() -> None:
    assert operation.parity({"ranker": 1e-6}, 0.97, USUAL).passed
    assert "ranker" in operation.parity({"ranker": 1e-3}, None, USUAL).reason
    theirs = np.full(100, 2.0)
    rare = np.concatenate([np.full(97, 2.0), np.full(3, 90.0)])

    def refused(ours: Floats, **more: Any) -> list[str]:
        found = operation.latency(Timed(theirs, ours, **more), USUAL)
        assert found.passed == all(one.passed for one in found.checks)
        return [one.name for one in found.checks if not one.passed]

    assert refused(np.full(100, 2.5)) == []
    assert refused(np.full(100, 3.0)) == ["median"]
    assert refused(rare) == ["p99"]
    assert refused(theirs, full=(0.99, 0.95)) == []
    assert refused(theirs, full=(0.99, 0.90)) == ["full"]
    # Where the machine is slow for both, the champion's own slowest are the measure.
    slow = Timed(np.concatenate([theirs, rare]), np.concatenate([theirs, rare]), (1.0, 1.0))
    assert operation.latency(slow, USUAL).passed
    failed = operation.latency(Timed(theirs, theirs, failed="no gateway comes up"), USUAL)
    assert not failed.passed
    assert "no gateway" in failed.reason


def _report(kind: str, west: float, east: float, seed: int = 0) -> FairnessReport:
    rng = np.random.default_rng(seed)
    region = ["west", "east"] * 600
    chance = np.array([west, east] * 600)
    values = (rng.random(1_200) < chance).astype(np.float64)
    measure = Measure(kind, kind, values)  # type: ignore[arg-type]
    return audit({"region": region}, [measure], np.arange(1_200), least_people=50)


def test_an_unfair_offer_policy_is_refused_and_an_old_gap_in_quality_is_not() -> None:
    alike, apart = _report("quality", 0.5, 0.5), _report("quality", 0.3, 0.6)
    assert offers(_report("offers", 0.5, 0.5), USUAL).passed
    silent = offers(None, USUAL)
    assert silent.passed
    assert not silent.judged
    assert silent.reason.startswith("not judged: no offers")
    unfair = offers(_report("offers", 0.3, 0.6), USUAL)
    assert not unfair.passed
    assert "offers by region: west" in unfair.reason
    assert served(apart, apart, USUAL).passed  # groups were never served alike
    assert served(alike, alike, USUAL).passed
    assert not served(apart, alike, USUAL).passed  # now they are served less alike


def test_an_attribute_that_was_named_has_to_be_judged() -> None:
    """Also where its ids match nobody, so that the report does not know of it at all."""
    alike = _report("quality", 0.5, 0.5)
    for verdict in (
        served(alike, alike, USUAL, ["region", "age"]),
        offers(_report("offers", 0.5, 0.5), USUAL, ["region", "age"]),
    ):
        assert not verdict.passed
        assert "by age: no two groups of 50 people" in verdict.reason
    assert offers(None, USUAL, ["age"]).passed  # nothing is offered to anybody


def test_what_goes_out_unjudged_is_told_of() -> None:
    told = offers(_report("offers", 0.5, 0.5), USUAL, unjudged=["offers of the new network: why"])
    assert told.passed
    assert told.judged
    assert told.reason == (
        "1 check, none outside its limit; not judged: offers of the new network: why"
    )
    assert not offers(None, USUAL, unjudged=["offers of the new network: why"]).judged


def test_exposure_is_what_is_new_and_the_first_place_counts_most() -> None:
    ranked = np.array([[5, 6, 7], [5, 6, 7], [5, 6, -1]])
    own = [np.array([5]), np.array([7]), np.array([], np.int64)]
    whole = 1 + 1 / np.log2(3) + 1 / 2
    assert novelty(ranked, own) == pytest.approx(
        [
            (1 / np.log2(3) + 1 / 2) / whole,
            (1 + 1 / np.log2(3)) / whole,
            (1 + 1 / np.log2(3)) / whole,
        ]
    )


def test_limits_can_be_changed_by_name_only() -> None:
    assert limits(["quality_loss=0.1", "min_purchases=5"]).min_purchases == 5
    for wrong in ("quality=1", "quality_loss=x", "slower=-1"):
        with pytest.raises(UserError, match="--gate"):
            limits([wrong])
    with pytest.raises(UserError, match="must be more than zero"):
        limits(["slower=0"])


def test_a_verdict_without_a_check_is_none() -> None:
    with pytest.raises(ValueError, match="nothing was looked at"):
        Verdict.of("quality", [])
    held = quality(np.ones(10), np.ones(10), np.arange(10), USUAL)
    assert Verdict.parse(held.as_json()) == held
