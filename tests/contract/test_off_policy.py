"""Off-policy estimates with answers that a reader can redo."""

import numpy as np
import pytest

from contract import off_policy as ope

# Three decisions between two arms, one person each.
ARM = np.array([0, 1, 1])
PROPENSITY = np.array([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
REWARD = np.array([1.0, 4.0, 0.0])
PERSON = np.arange(3)
TARGET = np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
MODEL = np.array([[1.0, 3.0], [1.0, 3.0], [1.0, 2.0]])


def _log(target: np.ndarray = TARGET, model: np.ndarray | None = MODEL) -> ope.Logged:
    return ope.logged(ARM, PROPENSITY, target, REWARD, PERSON, model)


def test_weights_are_new_over_old() -> None:
    assert _log().weight.tolist() == [0 / 0.5, 1 / 0.25, 0.5 / 0.5]


def test_ips() -> None:
    assert ope.ips(_log()).value == pytest.approx((0 * 1 + 4 * 4 + 1 * 0) / 3)


def test_snips() -> None:
    assert ope.snips(_log()).value == pytest.approx((0 * 1 + 4 * 4 + 1 * 0) / (0 + 4 + 1))


def test_clipped() -> None:
    assert ope.clipped_ips(_log(), most=2.0).value == pytest.approx(2 * 4 / 3)


def test_direct_method() -> None:
    assert ope.direct_method(_log()).value == pytest.approx((3 + 3 + (1 + 2) / 2) / 3)


def test_doubly_robust() -> None:
    corrections = 0 * (1 - 1) + 4 * (4 - 3) + 1 * (0 - 2)
    assert ope.doubly_robust(_log()).value == pytest.approx((3 + 3 + 1.5 + corrections) / 3)


def test_a_model_that_knows_all_leaves_nothing_to_correct() -> None:
    model = np.array([[1.0, 3.0], [1.0, 4.0], [1.0, 0.0]])
    log = _log(model=model)
    assert ope.doubly_robust(log).value == pytest.approx(ope.direct_method(log).value)


def test_the_logging_policy_itself_is_the_mean() -> None:
    log = _log(target=PROPENSITY, model=None)
    for estimate in (ope.ips(log), ope.snips(log)):
        assert estimate.value == pytest.approx(5 / 3)
    assert ope.overlap(log).effective == pytest.approx(3)


def test_the_error_is_of_a_mean() -> None:
    # Values 0, 16, 0: mean 16/3, standard deviation with n - 1, over the root of 3.
    values = np.array([0.0, 16.0, 0.0])
    assert ope.ips(_log()).error == pytest.approx(values.std(ddof=1) / np.sqrt(3))


def test_decisions_of_one_person_are_one_observation() -> None:
    """Two people with two equal decisions each: the error is that of two values, not of four."""
    reward = np.array([1.0, 1.0, 3.0, 3.0])
    estimate = ope.on_policy(reward, np.array([7, 7, 9, 9]))
    assert estimate.error == pytest.approx(np.array([1.0, 3.0]).std(ddof=1) / np.sqrt(2))


def test_a_difference_is_paired() -> None:
    log = _log(target=PROPENSITY, model=None)
    apart = ope.ips(log).less(ope.on_policy(REWARD, PERSON))
    assert (apart.value, apart.error) == pytest.approx((0.0, 0.0))


def test_effective_size() -> None:
    assert ope.effective_size(np.array([1.0, 1.0, 1.0, 1.0])) == pytest.approx(4)
    assert ope.effective_size(np.array([4.0, 0.0, 0.0, 0.0])) == pytest.approx(1)
    assert ope.effective_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)


def test_what_was_never_done_is_refused() -> None:
    propensity = np.tile([1.0, 0.0], (500, 1))
    target = np.tile([0.9, 0.1], (500, 1))
    log = ope.logged(np.zeros(500, np.int64), propensity, target, np.ones(500), np.arange(500))
    found = ope.overlap(log)
    assert found.unsupported == pytest.approx(0.1)
    assert found.refused is not None
    assert "never made" in found.refused


def test_too_few_decisions_are_refused() -> None:
    rng = np.random.default_rng(0)
    propensity = np.tile([0.98, 0.02], (2_000, 1))
    arm = (rng.random(2_000) < 0.02).astype(np.int64)
    target = np.tile([0.0, 1.0], (2_000, 1))
    found = ope.overlap(ope.logged(arm, propensity, target, np.ones(2_000), np.arange(2_000)))
    assert found.refused is not None
    assert f"only {arm.sum()} decisions" in found.refused
    assert any("max weight: one decision counts 50 times" in one for one in found.warnings)


def test_chances_that_are_not_the_true_ones_are_noticed() -> None:
    rng = np.random.default_rng(1)
    arm = (rng.random(5_000) < 0.3).astype(np.int64)
    said = np.tile([0.5, 0.5], (5_000, 1))  # in truth 0.7 and 0.3
    target = np.tile([0.1, 0.9], (5_000, 1))
    found = ope.overlap(ope.logged(arm, said, target, np.ones(5_000), np.arange(5_000)))
    assert any(one.startswith("mean weight") for one in found.warnings)


def test_rare_choices_are_noticed() -> None:
    propensity = np.tile([0.995, 0.005], (400, 1))
    target = np.tile([0.9, 0.1], (400, 1))
    log = ope.logged(np.zeros(400, np.int64), propensity, target, np.ones(400), np.arange(400))
    assert any(one.startswith("propensity floor: 10.0%") for one in ope.overlap(log).warnings)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"propensity": np.zeros((3, 2))}, "had no chance"),
        ({"target": np.ones((3, 2))}, "do not add up"),
        ({"target": np.array([[2.0, -1.0]] * 3)}, "from 0 to 1"),
    ],
)
def test_what_is_no_chance_is_refused(changed: dict[str, np.ndarray], said: str) -> None:
    given = {"propensity": PROPENSITY, "target": TARGET} | changed
    with pytest.raises(ValueError, match=said):
        ope.logged(ARM, given["propensity"], given["target"], REWARD, PERSON)


def test_no_decision_says_anything() -> None:
    log = ope.logged(
        *(np.zeros(4, np.int64), np.full((4, 2), 0.5), np.tile([0.0, 1.0], (4, 1))),
        *(np.ones(4), np.arange(4)),
    )
    assert np.isnan(ope.snips(log).value)
    assert ope.overlap(log).effective == 0


def test_one_persons_decisions_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    one = ope.on_policy(rng.random(400), np.zeros(400, np.int64))
    assert (one.error, one.low, one.high) == (np.inf, -np.inf, np.inf)


@pytest.mark.parametrize(("people", "refused"), [(1, True), (29, True), (30, False)])
def test_few_people_are_refused_however_much_they_decided(people: int, refused: bool) -> None:
    rng = np.random.default_rng(0)
    half = np.full((600, 2), 0.5)
    arm = rng.integers(0, 2, 600)
    found = ope.overlap(ope.logged(arm, half, half, rng.random(600), np.arange(600) % people))
    assert found.people == people
    assert (found.refused is not None) == refused


@pytest.mark.parametrize("name", ["reward", "model"])
def test_what_is_no_number_is_refused(name: str) -> None:
    given = {"reward": REWARD, "model": MODEL} | {name: np.full_like(REWARD, np.nan)}
    model = np.tile(given["model"][:, None], 2) if name == "model" else MODEL
    with pytest.raises(ValueError, match="needs a number"):
        ope.logged(ARM, PROPENSITY, TARGET, given["reward"], PERSON, model)
