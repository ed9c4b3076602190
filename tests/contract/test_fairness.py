"""Fairness figures with answers that a reader can redo, and gates that refuse and let pass."""

import numpy as np
import pytest

from contract.errors import GateRefused
from contract.fairness import FairnessLimits, Ints, Measure, audit, breaches, gate, small_groups

LIMITS = FairnessLimits()


def _people(*rates: tuple[str, int, int]) -> tuple[list[str], Measure, Ints]:
    """A group, its size and how many of it are offered something; one decision each."""
    groups: list[str] = []
    offered: list[float] = []
    for name, size, count in rates:
        groups += [name] * size
        offered += [1.0] * count + [0.0] * (size - count)
    measure = Measure("offer rate", "offers", np.array(offered))
    return groups, measure, np.arange(len(groups))


def test_difference_and_ratio_are_of_the_extreme_groups() -> None:
    groups, measure, person = _people(("old", 100, 20), ("middle", 200, 60), ("young", 100, 50))
    one = audit({"age": groups}, [measure], person).find("age", "offer rate")
    assert (one.highest, one.lowest) == ("young", "old")
    assert one.difference == pytest.approx(50 / 100 - 20 / 100)
    assert one.ratio == pytest.approx((20 / 100) / (50 / 100))
    assert [figure.value for figure in one.groups] == pytest.approx([0.3, 0.2, 0.5])


def test_opportunity_counts_only_those_who_count() -> None:
    groups = ["a"] * 100 + ["b"] * 100
    offered = np.tile([1.0, 0.0], 100)
    would_buy = np.concatenate([np.ones(100, bool), np.tile([True, True, False, True], 25)])
    measure = Measure("offered", "opportunity", offered, counted=would_buy)
    one = audit({"region": groups}, [measure], np.arange(200)).find("region", "offered")
    # In b of each four: offered and counts, not offered and counts, not counted, not offered: 1/3.
    assert [figure.value for figure in one.groups] == pytest.approx([1 / 2, 1 / 3])
    assert [figure.decisions for figure in one.groups] == [100, 75]


def test_weights_are_inverse_propensities() -> None:
    groups = ["a"] * 60 + ["b"] * 60
    values = np.tile([1.0, 0.0], 60)
    weight = np.where(values > 0, 1 / 0.25, 1 / 0.75)
    one = audit({"g": groups}, [Measure("m", "offers", values, weight=weight)], np.arange(120))
    assert one.comparisons[0].groups[0].value == pytest.approx(4 / (4 + 4 / 3))


def test_small_groups_are_named_and_not_judged() -> None:
    groups, measure, person = _people(("a", 100, 50), ("b", 100, 50), ("few", 49, 0))
    report = audit({"age": groups}, [measure], person)
    assert list(small_groups(report)) == [("age", "few", 49)]
    assert report.comparisons[0].ratio == 1.0
    assert breaches(report, LIMITS) == ()


def test_a_group_of_many_rows_but_few_people_is_small() -> None:
    groups = ["a"] * 100 + ["b"] * 500
    person = np.concatenate([np.arange(100), 100 + np.arange(500) // 50])
    measure = Measure("offer rate", "offers", np.zeros(600))
    one = audit({"g": groups}, [measure], person).comparisons[0]
    assert [(small.group, small.people, small.decisions) for small in one.small] == [("b", 10, 500)]


def test_decisions_of_no_known_group_are_in_none() -> None:
    groups, measure, person = _people(("a", 100, 50), ("b", 100, 50), ("x", 100, 0))
    told = [None if group == "x" else group for group in groups]
    one = audit({"age": told}, [measure], person).comparisons[0]
    assert [figure.group for figure in one.groups] == ["a", "b"]


def test_an_unfair_policy_is_refused_by_name() -> None:
    groups, measure, person = _people(("under 35", 400, 200), ("65 and over", 400, 80))
    with pytest.raises(GateRefused, match=r"fairness/offers: offer rate by age: 65 and over has"):
        gate(audit({"age": groups}, [measure], person), LIMITS)


def test_a_fair_policy_passes() -> None:
    groups, measure, person = _people(("a", 400, 200), ("b", 400, 190))
    gate(audit({"age": groups}, [measure], person), LIMITS)


def test_a_few_people_far_off_do_not_hide_a_proven_difference() -> None:
    """The extremes are `tiny` and `b`, a ratio of .723 that may be chance; a against b is none."""
    groups, measure, person = _people(("a", 2_000, 752), ("b", 2_000, 968), ("tiny", 60, 21))
    one = audit({"age": groups}, [measure], person).find("age", "offer rate")
    assert (one.highest, one.lowest) == ("b", "a")
    assert one.ratio == pytest.approx(752 / 968)
    assert one.proven
    with pytest.raises(GateRefused, match=r"a has 0\.78 of b"):
        gate(audit({"age": groups}, [measure], person), LIMITS)


def test_of_proven_pairs_the_lowest_ratio_is_told() -> None:
    groups, measure, person = _people(("a", 900, 90), ("b", 900, 180), ("c", 900, 270))
    one = audit({"age": groups}, [measure], person).find("age", "offer rate")
    assert (one.highest, one.lowest) == ("c", "a")
    assert one.ratio == pytest.approx(1 / 3)


def test_what_had_to_be_judged_and_could_not_is_refused() -> None:
    groups, measure, person = _people(("a", 20, 10), ("b", 20, 10))
    report = audit({"age": groups}, [measure], person)
    with pytest.raises(GateRefused, match="fairness/groups: age"):
        gate(report, FairnessLimits(must_judge=("age",)))


def test_an_attribute_of_nobody_had_to_be_judged_too() -> None:
    _, measure, person = _people(("a", 100, 50))
    report = audit({"age": [None] * 100}, [measure], person)
    assert not report.comparisons[0].judged
    assert [one.gate for one in breaches(report, FairnessLimits(must_judge=("age",)))] == [
        "fairness/groups"
    ]


def test_groups_that_are_alike_are_hardly_ever_refused() -> None:
    """Six groups of 60 people: by chance alone the extreme pair often has a ratio below 0.8."""
    refused = below = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        groups = [f"g{at % 6}" for at in range(360)]
        measure = Measure("offer rate", "offers", (rng.random(360) < 0.3).astype(np.float64))
        report = audit({"age": groups}, [measure], np.arange(360), resamples=200, seed=seed)
        below += report.comparisons[0].ratio < 0.8
        refused += bool(breaches(report, LIMITS))
    assert below > 80
    assert refused <= 8


def test_the_interval_counts_people_not_rows() -> None:
    """Twenty decisions of one person are no twenty people."""
    rng = np.random.default_rng(0)
    own = (rng.random(200) < 0.5).astype(np.float64)
    groups = ["a"] * 100 + ["b"] * 100
    once = audit({"g": groups}, [Measure("m", "offers", own)], np.arange(200)).comparisons[0]
    many = audit(
        {"g": np.repeat(groups, 20).tolist()},
        [Measure("m", "offers", np.repeat(own, 20))],
        np.repeat(np.arange(200), 20),
    ).comparisons[0]
    assert many.groups[0].high - many.groups[0].low == pytest.approx(
        once.groups[0].high - once.groups[0].low
    )


def test_intervals_hold() -> None:
    """Of 200 audits the 95 % interval of a group holds its true rate in about 95 of 100."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        measure = Measure("m", "offers", (rng.random(200) < 0.4).astype(np.float64))
        groups = ["a", "b"] * 100
        one = audit({"g": groups}, [measure], np.arange(200), resamples=100, seed=seed)
        figure = one.comparisons[0].groups[0]
        held += figure.low <= 0.4 <= figure.high
    assert 180 <= held <= 198


@pytest.mark.parametrize("wrong", ["groups", "values"])
def test_lengths_that_differ_are_refused(wrong: str) -> None:
    groups, measure, person = _people(("a", 60, 30), ("b", 60, 30))
    if wrong == "groups":
        groups = groups[1:]
    else:
        measure = Measure("m", "offers", np.zeros(3))
    with pytest.raises(ValueError, match="for 120 decisions"):
        audit({"age": groups}, [measure], person)
