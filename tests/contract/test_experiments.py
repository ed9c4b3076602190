"""Who is in which experiment is the same everywhere and for ever, nobody changes sides, and nobody
is in two experiments of a layer."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.experiments import (
    HELD_OUT,
    HOLDOUT,
    MOST_LAYERS_IN_USE,
    Assigner,
    Changes,
    Experiment,
    ExperimentBook,
    ExperimentRefused,
    personalised_against_generic,
)
from tests.contract.golden import FOLDER

NOW = datetime(2026, 1, 5, tzinfo=UTC)
GENERIC = ("personalised-against-generic", "generic")


def experiment(key: str = "button", **more: Any) -> Experiment:
    """A running one with two variants."""
    said = {
        "key": key,
        "title": key,
        "status": "running",
        "variants": [{"key": "control"}, {"key": "new", "changes": {"offers": False}}],
    }
    return Experiment.model_validate(said | more)


def holdout(held_out: float) -> Experiment:
    """Of that share of everybody."""
    variants = [{"key": HELD_OUT, "weight": held_out}, {"key": "open", "weight": 1 - held_out}]
    return experiment(HOLDOUT, variants=variants)


def test_golden_cases() -> None:
    """Whoever changes the function moves shoppers who take part to the other side."""
    cases = json.loads((FOLDER / "experiments.json").read_text())
    assert len(cases) == 6
    for case in cases:
        assigner = Assigner(Experiment.model_validate(one) for one in case["experiments"])
        for unit, expected in case["assigned"].items():
            found = assigner.assign(unit, NOW)
            assert [list(one) for one in found] == expected, (case["name"], unit)


@given(st.text(max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_nobody_changes_sides_while_the_share_grows(unit: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    variants = [{"key": "a", "weight": 3}, {"key": "b"}, {"key": "c", "weight": 0.1}]
    before, after = (
        Assigner([experiment(share=share, variants=variants)]).assign(unit, NOW)
        for share in (low, high)
    )
    assert not before or after == before
    assert len(Assigner([experiment(variants=variants)]).assign(unit, NOW)) == 1


def test_a_share_is_that_share() -> None:
    # 3 : 1 of 40 % of 10,000: 3,000 and 1,000, standard deviations 46 and 30.
    variants = [{"key": "a", "weight": 3}, {"key": "b"}]
    assigner = Assigner([experiment(share=0.4, variants=variants)])
    found = Counter(
        variant for n in range(10_000) for _, variant in assigner.assign(f"visitor-{n}", NOW)
    )
    assert abs(found["a"] - 3_000) < 5 * 46
    assert abs(found["b"] - 1_000) < 5 * 30


def test_of_one_layer_nobody_is_in_two_and_layers_do_not_know_each_other() -> None:
    members = [
        experiment("left", layer="till", slots=[0, 0.5]),
        experiment("right", layer="till", slots=[0.5, 1]),
        experiment("elsewhere"),
    ]
    assigner = Assigner(members)
    found = [dict(assigner.assign(f"visitor-{n}", NOW)) for n in range(8_000)]
    assert all(("left" in one) != ("right" in one) for one in found)
    pairs = Counter((one.get("left"), one["elsewhere"]) for one in found if "left" in one)
    # Four pairs of 1,000 each, standard deviation sqrt(8,000 / 8 * 7 / 8) = 30.
    assert len(pairs) == 4
    assert all(abs(count - 1_000) < 5 * 30 for count in pairs.values())


def test_whoever_is_held_out_is_in_nothing_else() -> None:
    assigner = Assigner([holdout(0.25), experiment()])
    found = [assigner.assign(f"visitor-{n}", NOW) for n in range(4_000)]
    out = [one for one in found if one[0] == (HOLDOUT, HELD_OUT)]
    assert all(len(one) == 1 for one in out)
    assert all(len(one) == 2 for one in found if one not in out)
    assert abs(len(out) - 1_000) < 5 * 28  # sqrt(4,000 * .25 * .75)


def test_it_runs_from_its_beginning_until_its_end() -> None:
    day = timedelta(days=1)
    timed = experiment(starts_at=NOW.isoformat(), ends_at=(NOW + day).isoformat())
    assigner = Assigner([timed])
    told = [assigner.assign("visitor-1", NOW + n * day / 2) for n in (-1, 0, 1, 2)]
    assert [bool(one) for one in told] == [False, True, True, False]
    assert [timed.runs(NOW + n * day / 2) for n in (-1, 0, 1, 2)] == [False, True, True, False]
    assert not Assigner([experiment(status="stopped")]).assign("visitor-1", NOW)


def test_the_first_test_is_personalised_against_generic() -> None:
    first = personalised_against_generic().model_copy(update={"status": "running"})
    assigner = Assigner([first])
    assert assigner.changes([GENERIC]) == Changes(personalization=False)
    assert assigner.changes([(GENERIC[0], "personalised")]) == Changes()
    # Whose history may not be used sees the same in both: they would only blur it.
    assert assigner.assign("visitor-1", NOW)
    assert not assigner.assign("visitor-1", NOW, personal=False)
    assert ExperimentBook().experiments == (personalised_against_generic(),)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"variants": [{"key": "a"}]}, "at least 2"),
        ({"variants": [{"key": "a"}, {"key": "a"}]}, "twice"),
        ({"variants": [{"key": "a"}, {"key": "b", "weight": 0}]}, "greater than 0"),
        ({"variants": [{"key": "a"}, {"key": "b", "changes": {"ofers": False}}]}, "ofers"),
        ({"share": 1.1}, "less than or equal to 1"),
        ({"key": "Upper"}, "pattern"),
        ({"slots": [0.5, 1]}, "none is named"),
        ({"layer": "till", "slots": [0.5, 0.5]}, "below the second"),
        ({"starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"}, "after"),
        ({"key": HOLDOUT}, "held_out and open"),
        ({"guardrails": [{"metric": "margin"}, {"metric": "margin"}]}, "twice"),
    ],
)
def test_what_is_no_experiment(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        experiment(**more)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"variants": [{"key": "control", "weight": 2}, {"key": "new"}]}, "variants"),
        ({"salt": "other"}, "salt"),
        ({"layer": "till"}, "layer"),
        ({"share": 0.2}, "share"),
        ({"status": "draft"}, "status"),
        ({"planned_units": 5_000}, "planned_units"),
        ({"primary_metric": "revenue"}, "primary_metric"),
        ({"guardrails": []}, "guardrails"),
        ({"guardrails": [{"metric": "margin", "max_loss": 0.9}]}, "guardrails"),
    ],
)
def test_what_runs_keeps_everybody_where_they_are(more: dict[str, Any], field: str) -> None:
    guardrails = [{"metric": "margin", "max_loss": 0.1}]
    begun = experiment(share=0.4, guardrails=guardrails)
    book = ExperimentBook().saved(begun, NOW)
    with pytest.raises(ExperimentRefused) as refused:
        book.saved(experiment("button", **({"share": 0.4, "guardrails": guardrails} | more)), NOW)
    assert refused.value.field == field
    more_guarded = [*guardrails, {"metric": "revenue"}]
    grown = book.saved(experiment(share=0.5, title="As it grew", guardrails=more_guarded), NOW)
    ended = begun.model_copy(update={"share": 0.5, "status": "stopped"})
    stopped = book.saved(ended, NOW)
    assert grown.get("button") != stopped.get("button")
    with pytest.raises(ExperimentRefused, match="another key"):
        stopped.saved(ended.model_copy(update={"status": "running"}), NOW)
    if field in {"planned_units", "primary_metric", "guardrails"}:
        with pytest.raises(ExperimentRefused):
            stopped.saved(Experiment.model_validate(ended.model_dump() | more), NOW)
    draft = ExperimentBook().saved(experiment(status="draft", share=0.4), NOW)
    assert draft.saved(experiment(share=0.1, salt="other"), NOW).get("button") is not None


def test_a_variant_that_nobody_would_be_in_is_not_started() -> None:
    variants = [{"key": "control", "weight": 1e-320}, {"key": "new"}]
    drafted = ExperimentBook().saved(experiment(status="draft", variants=variants), NOW)
    with pytest.raises(ExperimentRefused) as refused:
        drafted.saved(experiment(variants=variants), NOW)
    assert refused.value.field == "variants"
    drafted.saved(experiment(variants=[{"key": "control", "weight": 1e-5}, {"key": "new"}]), NOW)


def test_a_part_of_a_layer_belongs_to_one() -> None:
    book = ExperimentBook().saved(experiment("left", layer="till", slots=[0, 0.5]), NOW)
    with pytest.raises(ExperimentRefused, match="left"):
        book.saved(experiment("whole", layer="till"), NOW)
    waiting = book.saved(experiment("whole", layer="till", status="draft"), NOW)
    with pytest.raises(ExperimentRefused, match="left"):
        waiting.saved(experiment("whole", layer="till"), NOW)
    assert book.saved(experiment("right", layer="till", slots=[0.5, 1]), NOW).get("right")
    for n in range(MOST_LAYERS_IN_USE - 1):
        book = book.saved(experiment(f"one-{n}"), NOW)
    with pytest.raises(ExperimentRefused, match="layers"):
        book.saved(experiment("one-more"), NOW)


def test_what_is_over_frees_its_place_and_stays_over() -> None:
    day = timedelta(days=1)
    timed = experiment("left", layer="till", ends_at=NOW + day)
    book = ExperimentBook().saved(timed, NOW)
    longer = timed.model_copy(update={"ends_at": NOW + 2 * day})
    assert book.saved(longer, NOW).get("left") == longer
    with pytest.raises(ExperimentRefused, match="left"):
        book.saved(experiment("whole", layer="till"), NOW)
    assert book.saved(experiment("whole", layer="till"), NOW + day).get("whole")
    for ends_at in (NOW + 2 * day, None):
        with pytest.raises(ExperimentRefused, match="past") as refused:
            book.saved(timed.model_copy(update={"ends_at": ends_at}), NOW + day)
        assert refused.value.field == "ends_at"
    assert book.saved(timed.model_copy(update={"status": "stopped"}), NOW + day)


def test_two_of_one_salt_run_in_one_layer_only() -> None:
    book = ExperimentBook().saved(experiment(), NOW)
    with pytest.raises(ExperimentRefused, match="button") as refused:
        book.saved(experiment("other", salt="button"), NOW)
    assert refused.value.field == "salt"
    assert book.saved(experiment("other", salt="button", status="draft"), NOW)
    left = experiment("left", layer="till", slots=[0, 0.5], salt="both")
    right = experiment("right", layer="till", slots=[0.5, 1], salt="both")
    assert book.saved(left, NOW).saved(right, NOW).get("right")


def test_a_holdout_begins_before_the_tests_that_it_keeps_people_from() -> None:
    day, out = timedelta(days=1), holdout(0.1)
    running = ExperimentBook().saved(experiment(), NOW)
    with pytest.raises(ExperimentRefused, match="button runs") as refused:
        running.saved(out, NOW)
    assert refused.value.field == "status"
    before = ExperimentBook().saved(out, NOW)
    both = before.saved(experiment(), NOW)
    # It can be changed in words, and be stopped: nobody leaves a test by that.
    assert both.saved(out.model_copy(update={"title": "Held out"}), NOW + day)
    assert both.saved(out.model_copy(update={"status": "stopped"}), NOW + day)
    # One that waits for its day takes people then.
    waiting = ExperimentBook().saved(out.model_copy(update={"starts_at": NOW + day}), NOW)
    with pytest.raises(ExperimentRefused, match="button runs"):
        waiting.saved(experiment(), NOW)
    short = experiment(ends_at=NOW + day)
    beside = waiting.saved(short, NOW)
    with pytest.raises(ExperimentRefused, match="button runs"):
        beside.saved(short.model_copy(update={"ends_at": NOW + 2 * day}), NOW)
    assert waiting.saved(experiment(starts_at=NOW + day), NOW)
    assert beside.saved(experiment("later"), NOW + day).get("later")
