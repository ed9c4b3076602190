"""Key figures are what happened, in whatever order it was told, and survive a process that dies."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.clock import to_us
from contract.events import Event
from serving.monitoring.kpi_metrics import CLASSES, EDGES_MS
from serving.monitoring.kpi_rollup import KpiRollup
from serving.monitoring.kpis import DAY, HOUR, MINUTES_5, KpiReader, quantile
from serving.monitoring.visits import SubjectFacts, read_facts
from serving.state.sqlite_writer import connect

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
START, END = NOON - timedelta(days=2), NOON + timedelta(days=2)
COSTS = {"a": 60, "b": 10}


def event(number: int, name: str, minutes: float, **said: Any) -> Event:
    at = NOON + timedelta(minutes=minutes)
    body = {
        "event_id": UUID(int=number << 64),
        "event_name": name,
        "occurred_at": at,
        "received_at": at,
        "session_id": "s1",
        "subject_id": UUID(int=1),
        "purposes": ("analytics", "personalization"),
    }
    return Event.model_validate(body | said)


def decision(number: int, minutes: float, *shown: str, **said: Any) -> Event:
    body = {
        "release_id": "r1",
        "rung": "full",
        "degraded": [],
        "total_ms": 4.0,
        "offers": None,
        "experiments": [{"key": "test", "variant": "new"}],
        "segments": ["regular"],
    }
    items = [{"item_id": one} for one in shown]
    context = {"device": "mobile", "country": "DE"}
    return event(number, "decision", minutes, items=items, context=context, decision=body, **said)


def order(number: int, minutes: float, transaction: str, *items: str, **said: Any) -> Event:
    lines = [{"item_id": one, "price": 100} for one in items]
    return event(number, "purchase", minutes, transaction_id=transaction, items=lines, **said)


def refund(number: int, minutes: float, transaction: str, value: int) -> Event:
    items = [{"item_id": "a"}]
    return event(number, "refund", minutes, transaction_id=transaction, items=items, value=value)


def written(path: Path, batches: Sequence[Sequence[tuple[str, Event]]]) -> Path:
    with closing(connect(path)) as file:
        rollup = KpiRollup(file)
        for batch in batches:
            rollup.take(batch, COSTS)
    return path


def totals(path: Path, where: tuple[str, str] = ("all", "")) -> dict[str, float]:
    with KpiReader.open(path) as kpis:
        found = kpis.totals(START, END, where)
        by_hour = kpis.sums(START, END, HOUR, where).total()
        assert found.counters == pytest.approx(by_hour.counters)
    names = ("visits", "converted", "carts", "abandoned", "shown", "taken", "decisions", "orders")
    money = ("revenue", "margin", "refunded", "offer_cost", "decided_revenue")
    return {one: value for one in (*names, *money) if (value := float(found.of(one)[0]))}


STORY = (
    event(1, "view_item", 0, items=[{"item_id": "a"}]),
    event(2, "add_to_cart", 1, items=[{"item_id": "a"}]),
    decision(3, 2, "b", "c"),
    order(4, 5, "t1", "a", "b"),
    # Another visit, decided, which buys from a till that names another session.
    decision(5, 60, "c", session_id="s2"),
    order(6, 90, "t2", "c", session_id="till"),
    # Given back in part, and as a whole.
    refund(7, 600, "t1", 50),
    refund(8, 700, "t2", 100),
)


def test_what_nobody_said_the_worth_of_and_what_came_back_whole(tmp_path: Path) -> None:
    lines = [{"item_id": "a"}]
    told = [
        order(1, 0, "t1", "a"),
        order(2, 1, "t2", "a"),
        event(3, "purchase", 2, transaction_id="t3", items=lines),
        event(4, "purchase", 3, transaction_id="t4", items=lines),
        event(5, "refund", 4, transaction_id="t2"),  # all of it, as in GA4
        event(6, "refund", 5, transaction_id="t4"),
        event(7, "refund", 6, transaction_id="t1", items=lines),  # of what these cost, no word
    ]
    path = written(tmp_path / "rollup.sqlite", [[("aa", one) for one in reversed(told)]])
    span = NOON - timedelta(hours=1), NOON + timedelta(hours=3)
    with KpiReader.open(path) as kpis:
        sums = kpis.totals(*span)
        average, share = sums.series("order_value"), sums.series("margin_share")
        assert sums.series("orders").numerator.sum() == 2
    assert (average.numerator.sum(), average.denominator.sum()) == (100, 1)
    assert (share.numerator.sum(), share.denominator.sum()) == (40, 100)


def test_sums_of_before_count_every_order_in_the_average(tmp_path: Path) -> None:
    path = written(tmp_path / "rollup.sqlite", [[("aa", order(1, 0, "t1", "a"))]])
    with closing(connect(path)) as file:
        file.execute("ALTER TABLE kpi_sums DROP COLUMN valued")
        KpiRollup(file)
    with KpiReader.open(path) as kpis:
        average = kpis.totals(NOON - timedelta(hours=1), NOON + timedelta(hours=1))
        assert average.series("order_value").value.tolist() == [100]


def test_what_is_refused_is_a_share_of_what_was_shown_and_takes_nothing_from_the_rest(
    tmp_path: Path,
) -> None:
    def said(number: int, kind: str, *items: str) -> Event:
        named = [{"item_id": one} for one in items]
        return event(number, "feedback", 30 + number, items=named, feedback=kind)

    words = (
        *(said(20, "not_for_me", "c"), said(21, "hidden", "b", "c")),
        said(22, "not_for_me", "elsewhere"),  # was not suggested
        said(23, "returned", "b"),  # is about the goods, not the suggestion
    )
    told = [("aa", one) for one in (*STORY, *words)]
    plain = written(tmp_path / "plain.sqlite", [[("aa", one) for one in STORY]])
    path = written(tmp_path / "said.sqlite", [told[:5], told[5:], told[:1]])
    assert totals(path) == totals(plain)
    span = NOON - timedelta(hours=1), NOON + timedelta(hours=3)
    for file, refused in ((path, 2), (plain, 0)):
        with KpiReader.open(file) as kpis:
            rate = kpis.totals(*span).series("refusal_rate")
        assert (rate.numerator.sum(), rate.denominator.sum()) == (refused, 3)


def test_a_story_is_counted_as_a_person_would(tmp_path: Path) -> None:
    path = written(tmp_path / "rollup.sqlite", [[("aa", one) for one in STORY]])
    assert totals(path) == {
        "visits": 3,  # s1, s2 and the till's
        "converted": 1,
        "carts": 3,
        "abandoned": 2,  # the order of s2 was given back whole
        "shown": 3,
        "taken": 1,  # b
        "decisions": 2,
        "orders": 1,
        "revenue": 150,
        "margin": (200 - 70) * 150 / 200,
        "refunded": 50,
        "decided_revenue": 150,
    }
    arm = totals(path, ("experiment", "test:new"))
    assert (arm["visits"], arm["converted"], arm["revenue"], arm["decisions"]) == (2, 1, 150, 2)
    assert totals(path, ("segment", "regular"))["decisions"] == 2
    assert totals(path, ("device", "mobile"))["visits"] == 2
    with KpiReader.open(path) as kpis:
        series = kpis.series("conversion", NOON, NOON + timedelta(hours=3))
        assert series.numerator.tolist() == [1, 0, 0]
        assert series.denominator.tolist() == [1, 2, 0]
        assert series.value[:2].tolist() == [1.0, 0.0]
        assert np.isnan(series.value[2])
        assert kpis.as_of() == NOON + timedelta(minutes=700)
        assert [one.value for one in kpis.slices("release")] == ["r1"]


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_order_repeats_and_batches_change_nothing(random: Random, batches: int) -> None:
    told = [*STORY, *random.choices(STORY, k=3)]
    random.shuffle(told)
    cuts = sorted(random.randrange(len(told) + 1) for _ in range(batches - 1))
    parts = [told[a:b] for a, b in zip([0, *cuts], [*cuts, len(told)], strict=True)]
    with closing(connect(Path(":memory:"))) as file, closing(connect(Path(":memory:"))) as once:
        rollup = KpiRollup(file)
        for part in parts:
            rollup.take([("aa", one) for one in part], COSTS)
        KpiRollup(once).take([("aa", one) for one in STORY], COSTS)
        read = "SELECT * FROM kpi_sums ORDER BY grain, cut, value, start_us"
        some = [row for row in file.execute(read) if any(row[4:])]
        assert some == [row for row in once.execute(read) if any(row[4:])]


def test_facts_come_back_from_the_file() -> None:
    facts = SubjectFacts()
    for one in STORY:
        facts.note(one, to_us(one.occurred_at), COSTS)
    facts.seen["x"] = 5
    facts.offers["t1"] = 7
    again = read_facts(facts.as_json())
    assert again == facts
    assert again.counted() == facts.counted()


def test_what_is_old_is_let_go_of_and_stays_counted(tmp_path: Path) -> None:
    path = tmp_path / "rollup.sqlite"
    later = event(20, "page_view", 60 * 24 * 40, session_id="s9")
    written(path, [[("aa", one) for one in STORY], [("aa", later)], [("bb", later)]])
    before = totals(path)
    with closing(connect(path)) as file:
        rollup = KpiRollup(file)
        (body,) = file.execute("SELECT body FROM kpi_facts WHERE subject = 'aa'").fetchone()
        assert list(read_facts(body).visits) == ["s9"]
        assert not read_facts(body).orders
        rollup.forget(["aa"])
        rollup.tidy()
        assert file.execute("SELECT subject FROM kpi_facts").fetchall() == [("bb",)]
        assert file.execute("SELECT count(*) FROM kpi_transactions").fetchone() == (0,)
    assert totals(path) == before


@pytest.mark.parametrize("tidied", [False, True])
def test_an_order_that_is_told_again_after_months_counts_once(tmp_path: Path, tidied: bool) -> None:
    """By the same event, by one of then under another id, and by one of now, as of a page that was
    opened again."""
    path = tmp_path / "rollup.sqlite"
    months = 60 * 24 * 90
    later = event(20, "page_view", months, session_id="s9")
    written(path, [[("aa", one) for one in STORY], [("aa", later)]])
    before = totals(path)
    with closing(connect(path)) as file:
        rollup = KpiRollup(file)
        rollup.redeemed("t1", 30, 0)  # so late it changes nothing
        if tidied:
            rollup.take([("bb", event(21, "page_view", 2 * months, session_id="s1"))], COSTS)
            rollup.tidy()
        again = [STORY[3], order(30, 5, "t1", "a", "b"), order(31, months, "t1", "a", "b")]
        rollup.take([("aa", one) for one in again], COSTS)
        rollup.redeemed("t1", 30, 0)
    assert totals(path) == before
    with KpiReader.open(path) as kpis:
        span = START, NOON + timedelta(days=200)
        assert kpis.totals(*span).of("orders").tolist() == [before["orders"]]


def test_names_of_orders_go_with_their_retention_and_with_who_withdraws(tmp_path: Path) -> None:
    path = written(tmp_path / "rollup.sqlite", [[("aa", one) for one in STORY]])
    count = "SELECT count(*) FROM kpi_transactions"
    with closing(connect(path)) as file:
        rollup = KpiRollup(file)
        rollup.take([("bb", order(30, 60 * 24 * 90, "t3", "a", subject_id=UUID(int=2)))], COSTS)
        rollup.tidy(to_us(NOON))
        assert file.execute(count).fetchone() == (3,)
        rollup.tidy(to_us(NOON + timedelta(days=1)))
        assert file.execute(count).fetchone() == (1,)
        rollup.forget(["bb"])
        assert file.execute(count).fetchone() == (0,)


def test_orders_of_a_version_that_put_no_time_to_them_are_kept_as_of_today(tmp_path: Path) -> None:
    path = written(tmp_path / "rollup.sqlite", [[("aa", one) for one in STORY]])
    with closing(connect(path)) as file:
        file.execute("ALTER TABLE kpi_transactions DROP COLUMN at_us")
        KpiRollup(file).tidy(to_us(NOON + timedelta(minutes=699)))
        assert file.execute("SELECT count(*) FROM kpi_transactions").fetchone() == (2,)


def test_a_batch_of_many_weeks_is_counted_as_it_happened(tmp_path: Path) -> None:
    weeks_later = event(20, "page_view", 60 * 24 * 40, session_id="s9")
    first = [("bb", one) for one in STORY[:3]]
    then = [("aa", weeks_later), *(("bb", one) for one in STORY[3:])]
    path = written(tmp_path / "rollup.sqlite", [first, then])
    once = written(tmp_path / "once.sqlite", [[("bb", one) for one in STORY]])
    assert totals(path) == totals(once)


def test_a_redeemed_offer_costs_whenever_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "rollup.sqlite"
    with closing(connect(path)) as file:
        rollup = KpiRollup(file)
        rollup.redeemed("t1", 30, 0)  # before the order is told
        rollup.take([("aa", one) for one in STORY[:6]], COSTS)
        rollup.redeemed("t2", 20, 0)  # after
        rollup.redeemed("unknown", 9, 0)
    assert totals(path)["offer_cost"] == 50
    with closing(connect(path)) as file:
        KpiRollup(file).redeemed("t1", 0, 0)  # rolled back
    assert totals(path)["offer_cost"] == 20


def test_a_batch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rollup.sqlite"
    with closing(connect(path)) as file:
        rollup = KpiRollup(file)
        file.execute("BEGIN IMMEDIATE")
        rollup.take([("aa", one) for one in STORY[:4]], COSTS)
        file.execute("ROLLBACK")
        rollup.take([("aa", one) for one in STORY[:4]], COSTS)
    assert totals(path)["orders"] == 1


def test_quantiles_are_read_from_classes() -> None:
    counts = np.zeros((3, len(CLASSES)))
    counts[0, 0] = 10  # 0 to 1 ms
    counts[1, [3, 10]] = 50, 50  # 3 to 5 ms and 50 to 75 ms
    assert quantile(counts, 0.5).tolist() == [0.5, 5.0, 0.0]
    assert quantile(counts, 0.99)[1] == pytest.approx(50 + 25 * 49 / 50)
    slowest = np.zeros((1, len(CLASSES)))
    slowest[0, -1] = 1
    assert quantile(slowest, 0.99).tolist() == [EDGES_MS[-2]]


def test_any_range_is_tiled_by_whole_buckets(tmp_path: Path) -> None:
    told = [
        ("aa", event(number, "page_view", 7.0 * number, session_id=f"s{number}"))
        for number in range(700)
    ]
    path = written(tmp_path / "rollup.sqlite", [told])
    random = Random(1)
    with KpiReader.open(path) as kpis:
        for _ in range(30):
            start = NOON + timedelta(minutes=random.randrange(3_000))
            end = start + timedelta(minutes=random.randrange(3_000))
            fine = kpis.sums(start, end, MINUTES_5).of("visits").sum()
            assert kpis.totals(start, end).of("visits").tolist() == [fine]
        days = kpis.sums(NOON, NOON + timedelta(days=4), DAY)
        assert days.of("visits").sum() == sum(
            1 for number in range(700) if number * 7 < 60 * (12 + 24 * 3)
        )
