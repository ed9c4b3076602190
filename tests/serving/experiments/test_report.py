"""Reports say what the log holds, of those who agree, and stop what loses too much."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from benchmarks.experiment_units import shoppers
from contract.clock import FixedClock
from contract.experiments import Experiment, Guardrail, personalised_against_generic
from serving.__main__ import main
from serving.commands.experiment_reports import ReportRound, _stop
from serving.control import open_control
from serving.experiments.report import made_report, to_stop
from serving.experiments.rollup import FILE, Rollup
from serving.experiments.statistics import COLUMNS
from serving.experiments.units import Units, units_of
from serving.settings import Settings
from serving.state.control_records import Consent
from serving.state.secrets import Secrets
from tests.serving.conftest import ALL, NOON, Running, purchase

KEY = "personalised-against-generic"
FIRST = personalised_against_generic().model_copy(update={"status": "running"})
NOW = datetime(2026, 1, 5, tzinfo=UTC)


async def put(running: Running, experiment: Experiment) -> None:
    answer = await running.client.put(
        f"/v1/experiments/{experiment.key}",
        json={"experiment": experiment.model_dump(mode="json", exclude_none=True)},
        headers=running.bearer("admin"),
    )
    assert answer.status_code == 200, answer.text


async def checkout(running: Running, visitor: str, session: str) -> list[str]:
    answer = await running.decide(
        visitor_id=visitor,
        session_id=session,
        consent=ALL,
        context={"device": "mobile" if visitor < "visitor-3" else "desktop"},
    )
    said = answer.json()
    assert said["experiments"], said
    await running.quiet()
    return [one["item_id"] for one in said["recommendations"]]


async def send(running: Running, *events: dict[str, Any]) -> None:
    answer = await running.post("/v1/events", {"events": list(events)})
    assert answer.status_code == 202, answer.text
    assert all(one["status"] != "rejected" for one in answer.json()["results"]), answer.text


def bought(
    visitor: str, session: str, transaction: str, *items: str, at: datetime
) -> dict[str, Any]:
    said = {"visitor_id": visitor, "session_id": session, "transaction_id": transaction}
    return purchase(*items, **said) | {"occurred_at": at.isoformat()}


def rows_of(file: Path) -> dict[str, dict[str, float]]:
    """What is known of each variant, summed."""
    rollup = Rollup(file)
    try:
        units = units_of(rollup.file, KEY)
    finally:
        rollup.close()
    return {
        variant: {name: units.moments(variant).total(name) for name in COLUMNS}
        | {"units": units.moments(variant).units}
        for variant in ("generic", "personalised")
    }


async def test_the_report_counts_what_happened_and_lets_go_of_people(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    await put(running, FIRST)
    state = running.gateway.settings.state
    # Before anything was shown: known of them already.
    await send(running, bought("visitor-1", "s0", "t0", "item-9", at=NOON - timedelta(days=3)))
    shown = {name: await checkout(running, name, "s1") for name in ("visitor-1", "visitor-2")}
    await checkout(running, "visitor-3", "s1")
    running.clock.at += timedelta(minutes=10)
    later = running.clock.now()
    order = bought("visitor-1", "s1", "t1", shown["visitor-1"][0], "item-9", at=later)
    again = order | {"event_id": str(uuid4())}  # the same transaction, told twice
    half_back = bought("visitor-1", "s1", "t1", "item-9", at=later) | {
        "event_name": "refund",
        "value": 50,
    }
    await send(running, order, again, half_back)
    all_back = bought("visitor-2", "s1", "t2", "item-9", at=later)
    await send(running, all_back, all_back | {"event_id": str(uuid4()), "event_name": "refund"})
    # Given back without a word of how much: all of it. And one of which nobody said the price.
    whole = bought("visitor-3", "s1", "t3", "item-9", at=later)
    said_back = {"event_id": str(uuid4()), "event_name": "refund", "items": []}
    priceless = bought("visitor-1", "s1", "t4", "item-9", at=later)
    await send(running, whole, whole | said_back, priceless | {"items": [{"item_id": "item-9"}]})
    # Half an hour on, what came to nothing has; who has just come may still order.
    running.clock.at += timedelta(minutes=40)
    await checkout(running, "visitor-3", "s2")

    assert main(["experiment", "report", "--state", str(state)]) == 0
    rows = rows_of(state / FILE)
    whole = {name: sum(one[name] for one in rows.values()) for name in (*COLUMNS, "units")}
    assert whole == {
        "units": 3,
        "buyers": 1,
        "orders": 2,
        "valued": 1,
        "revenue": 150,
        "margin": 0,  # nobody said a cost
        "checkouts": 3,
        "abandoned": 2,  # what was refunded whole is no order
        "shown": 5 * 3,
        "taken": 1,
        "buyers_before": 1,
        "orders_before": 1,
        "valued_before": 1,
        "revenue_before": 100,
    }
    answer = await running.client.get(
        f"/v1/experiments/{KEY}/report", headers=running.bearer("admin")
    )
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["units"] == 3
    assert report["orders_without_cost"] == 2
    assert "fewer than 100 people" in report["summary"][0]

    # One withdraws; another is erased, which reaches this file by itself.
    identities = {
        name: running.gateway.subjects.recognise(name, None, None, gpc=False).subject_id
        for name in ("visitor-1", "visitor-2")
    }
    await running.gateway.control.record_consent(
        str(identities["visitor-1"]), Consent(frozenset({"personalization"}), later, "test")
    )
    erased = await running.client.delete(
        f"/v1/subjects/{identities['visitor-2']}", headers=running.bearer("admin")
    )
    assert erased.status_code == 200, erased.text
    capsys.readouterr()
    assert main(["experiment", "report", "--state", str(state), "--json", "-"]) == 0
    assert "1 subjects let go" in capsys.readouterr().out
    assert sum(one["units"] for one in rows_of(state / FILE).values()) == 1
    assert sum(one["orders_before"] for one in rows_of(state / FILE).values()) == 0


async def test_what_is_stopped_is_written_with_its_reason(running: Running) -> None:
    await put(running, FIRST)
    settings = running.gateway.settings

    def stop() -> None:
        control = open_control(settings, running.gateway.secrets)
        try:
            assert _stop(control, KEY, "guardrail revenue", NOON)
            assert not _stop(control, KEY, "once more", NOON)
            assert not _stop(control, "nothing", "there is none", NOON)
        finally:
            control.close()

    await asyncio.to_thread(stop)
    answer = await running.client.get(f"/v1/experiments/{KEY}", headers=running.bearer("admin"))
    said = answer.json()
    assert (said["running"], said["version"], said["note"]) == (False, 2, "guardrail revenue")
    running.gateway.experiments.follow()
    assert (await running.decide(consent=ALL)).json()["experiments"] == []


async def test_it_is_stopped_as_it_is_written_by_then(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody raises the share between the report and its end."""
    guarded = {"status": "running", "guardrails": (Guardrail(metric="revenue", max_loss=0.05),)}
    await put(running, FIRST.model_copy(update={**guarded, "share": 0.5}))
    settings, loop = running.gateway.settings, asyncio.get_running_loop()

    def written_meanwhile(*_: object) -> Units:
        wider = FIRST.model_copy(update={**guarded, "share": 0.9})
        asyncio.run_coroutine_threadsafe(put(running, wider), loop).result(30)
        return simulated(10_000, -0.4)

    monkeypatch.setattr("serving.commands.experiment_reports.units_of", written_meanwhile)
    notes = await asyncio.to_thread(_reported, settings, running.gateway.secrets)
    assert f"{KEY} was stopped by its guardrail" in notes
    answer = await running.client.get(f"/v1/experiments/{KEY}", headers=running.bearer("admin"))
    said = answer.json()
    assert (said["experiment"]["status"], said["experiment"]["share"]) == ("stopped", 0.9)
    assert said["note"] == "guardrail revenue"


async def test_one_that_can_not_be_reported_keeps_no_other_from_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FIRST.model_copy(update={"key": "broken"})
    for one in (first, FIRST):
        await put(running, one)

    def units_but_of_one(_: object, key: str) -> Units:
        if key == first.key:
            raise ValueError("of this one nothing can be told")
        return simulated(1_000, 0)

    monkeypatch.setattr("serving.commands.experiment_reports.units_of", units_but_of_one)
    with pytest.raises(ValueError, match="of this one"):
        await asyncio.to_thread(_reported, running.gateway.settings, running.gateway.secrets)
    for key, status in ((first.key, 404), (KEY, 200)):
        path = f"/v1/experiments/{key}/report"
        answer = await running.client.get(path, headers=running.bearer("admin"))
        assert answer.status_code == status


def _reported(settings: Settings, secrets: Secrets) -> list[str]:
    """The notes of one round of reports."""
    control = open_control(settings, secrets)
    rollup = Rollup(settings.state / FILE)
    try:
        return ReportRound(control, rollup, FixedClock(NOON)).run().notes
    finally:
        rollup.close()
        control.close()


async def test_no_report_yet(running: Running) -> None:
    answer = await running.client.get(
        f"/v1/experiments/{KEY}/report", headers=running.bearer("admin")
    )
    assert answer.status_code == 404
    assert "experiment report" in answer.json()["detail"]
    nothing = await running.client.get(
        "/v1/experiments/nothing/report", headers=running.bearer("admin")
    )
    assert (nothing.status_code, nothing.json()["detail"]) == (404, "There is no such experiment.")


def simulated(count: int, lift: float, seed: int = 1, treated: int | None = None) -> Units:
    """`count` people of each variant, `treated` of the second if that is another number."""
    rng = np.random.default_rng(seed)
    others = count if treated is None else treated
    rows = np.concatenate([shoppers(rng, count), shoppers(rng, others, lift=lift)])
    known = rows[:, COLUMNS.index("buyers_before")] > 0
    return Units(
        variants=["generic"] * count + ["personalised"] * others,
        cuts={"bought_before": ["yes" if one else "no" for one in known]},
        rows=rows,
        mixed=0,
        orders_without_cost=0,
    )


def test_a_lift_is_told_in_figures_and_words() -> None:
    report = made_report(FIRST, simulated(20_000, 0.1), NOW)
    control, variant = report.variants
    assert control.metrics == []
    told = {one.metric: one for one in variant.metrics}
    assert len(told) == 6
    assert told["conversion"].primary
    assert told["conversion"].always.low > 0
    assert told["revenue"].interval.low < 0.1 < told["revenue"].interval.high
    assert told["revenue"].cuped
    assert told["abandonment"].lift < 0
    assert [one.value for one in variant.cuts] == ["no", "yes"]
    assert report.sample_ratio.ok
    assert "personalised changes conversion by +" in report.summary[0]
    assert to_stop(report) is None
    assert "no difference is shown yet" in made_report(FIRST, simulated(300, 0), NOW).summary[0]


def test_people_who_get_lost_make_every_figure_void() -> None:
    report = made_report(FIRST, simulated(10_000, -0.9, treated=9_000), NOW)
    assert not report.sample_ratio.ok
    assert len(report.summary) == 1
    assert "Believe no figure" in report.summary[0]


def test_a_variant_that_sells_nothing_is_stopped_also_where_people_are_lost() -> None:
    guardrails = tuple(
        Guardrail(metric=one, max_loss=0.05) for one in ("conversion", "revenue", "abandonment")
    )
    guarded = FIRST.model_copy(update={"guardrails": guardrails})
    report = made_report(guarded, simulated(5_000, -1), NOW)
    assert all(one.measured and one.broken for one in report.variants[1].guardrails)
    assert to_stop(report) == guardrails[0]
    assert report.summary[0] == "personalised: no orders at all in personalised."
    lossy = made_report(guarded, simulated(5_000, -1, treated=4_000), NOW)
    assert not lossy.sample_ratio.ok
    assert to_stop(lossy) == guardrails[0]
    assert "loses more of conversion than 5%" in lossy.summary[1]


def test_many_variants_and_their_cuts_are_corrected_for_their_number() -> None:
    pair = simulated(2_000, 0.1)
    third = Experiment.model_validate(
        FIRST.model_dump() | {"variants": [*FIRST.model_dump()["variants"], {"key": "third"}]}
    )
    half = len(pair.variants) // 2
    three = Units(
        variants=[*pair.variants, *["third"] * half],
        cuts={"bought_before": [*pair.cuts["bought_before"], *pair.cuts["bought_before"][half:]]},
        rows=np.concatenate([pair.rows, pair.rows[half:]]),
        mixed=0,
        orders_without_cost=0,
    )
    one, two = (made_report(a, b, NOW).variants[1] for a, b in ((FIRST, pair), (third, three)))
    assert two.metrics[0].p == pytest.approx(2 * one.metrics[0].p)
    assert two.metrics[0].interval.low < one.metrics[0].interval.low
    assert two.metrics[0].always.low < one.metrics[0].always.low
    assert two.cuts[0].always.low < one.cuts[0].always.low
    assert two.cuts[0].always_p >= one.cuts[0].always_p


def test_several_guardrails_share_the_chance_of_a_false_alarm() -> None:
    named = [Guardrail(metric=one) for one in ("conversion", "order_value", "abandonment")]

    def loses(lift: float, guardrails: list[Guardrail]) -> bool:
        guarded = FIRST.model_copy(update={"guardrails": tuple(guardrails)})
        return made_report(guarded, simulated(3_000, lift), NOW).variants[1].guardrails[0].broken

    told = [(loses(lift, named[:1]), loses(lift, named)) for lift in (-0.145, -0.15, -0.155)]
    assert (True, False) in told
    assert (False, True) not in told
    clear = simulated(20_000, -0.11)
    sure = made_report(FIRST.model_copy(update={"guardrails": tuple(named)}), clear, NOW)
    assert to_stop(sure) == named[0]


def test_a_margin_of_which_a_part_is_unknown_is_not_told() -> None:
    units = simulated(1_000, 0)
    some = Units(units.variants, units.cuts, units.rows, 0, orders_without_cost=1)
    assert "margin" not in {one.metric for one in made_report(FIRST, some, NOW).variants[1].metrics}


@pytest.mark.parametrize(("stops", "ends"), [(True, True), (False, False)])
def test_a_guardrail_that_is_broken_ends_it(stops: bool, ends: bool) -> None:
    guardrail = Guardrail(metric="revenue", max_loss=0.05, stops=stops)
    guarded = FIRST.model_copy(update={"guardrails": (guardrail,)})
    report = made_report(guarded, simulated(10_000, -0.4), NOW)
    assert report.variants[1].guardrails[0].broken
    assert (to_stop(report) == guardrail) is ends
    assert "loses more of revenue per person than 5%" in " ".join(report.summary)
    assert to_stop(made_report(guarded, simulated(10_000, 0), NOW)) is None


def test_size_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "size.json"
    asked = ["experiment", "size", "--baseline", "0.5", "--lift", "0.05", "--per-day", "1000"]
    assert main([*asked, "--json", str(target)]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(target.read_text())["rows"]}
    assert rows["one look at the end"]["people"]["mean"] == pytest.approx(12_558, abs=5)
    assert rows["one look at the end"]["days"]["mean"] == 13
    assert rows["any look"]["people"]["mean"] > 12_558
    assert main([*asked, "--share", "0"]) == 2
    assert main([*asked, "--weights", "nan", "1"]) == 2
    assert main([*asked[:4], "--lift", "1", "--per-day", "1000"]) == 2  # everybody, and more
    assert main([*asked, "--weights", "inf", "1"]) == 2
    assert main([*asked[:3], "3", *asked[4:]]) == 2
    assert "--deviation" in capsys.readouterr().err
