"""A promotion whose process was killed is brought to its end, and nothing else is taken for one."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from contract.rollout import ROLLOUT
from contract.rollout_file import named, promote, read_rollout, stop_canary
from tests.training.conftest import small_recipe
from tests.training.retraining.conftest import NOW
from training.gates.limits import Limits
from training.retraining import rollout
from training.retraining.plan import Wish

OLD, MINE = "20240410T000000Z-demo", "20240501T120000Z-demo"


@pytest.fixture
def asked(tmp_path: Path) -> Wish:
    """Over a folder in which one release has been live for a week."""
    promote(tmp_path, OLD, NOW.at - timedelta(days=7))
    return Wish(
        data=tmp_path,
        champion=OLD,
        releases=tmp_path,
        models=tmp_path,
        output=tmp_path,
        recipe=small_recipe(),
        limits=Limits(),
        rollout="promote",
    )


def test_killed_between_the_two_files_of_a_promotion_it_is_promoted(asked: Wish) -> None:
    started = rollout.start(asked, MINE, NOW)["started_at"]
    half = read_rollout(asked.releases).promoted(OLD, MINE, NOW.at)
    # And then it died: `current` names the one before.
    (asked.releases / ROLLOUT).write_bytes(half.about_to_name(MINE).as_bytes())
    told = rollout.finish(asked, MINE, started, NOW)
    assert told == {"became": "promoted", "reason": "the trial stood for 0 minutes"}
    assert named(asked.releases) == MINE
    assert read_rollout(asked.releases) == half
    # Killed behind both files, before the step was recorded.
    assert rollout.finish(asked, MINE, started, NOW) == told
    assert read_rollout(asked.releases) == half


def test_a_person_who_promotes_before_the_trial_is_over_is_told_of(asked: Wish) -> None:
    slow = replace(asked, canary_minutes=10.0)
    started = rollout.start(slow, MINE, NOW)["started_at"]
    promote(asked.releases, MINE, NOW.at + timedelta(minutes=1))
    told = rollout.finish(slow, MINE, started, NOW)
    assert told == {"became": "promoted", "reason": "it is the live one"}


def test_a_trial_that_somebody_stopped_is_not_taken_for_half_a_promotion(asked: Wish) -> None:
    started = rollout.start(asked, MINE, NOW)["started_at"]
    stop_canary(asked.releases)
    assert rollout.finish(asked, MINE, started, NOW)["became"] == "taken back"
    assert named(asked.releases) == OLD
    # Nor is one that another release was promoted over.
    started = rollout.start(asked, MINE, NOW)["started_at"]
    promote(asked.releases, "another", NOW.at)
    assert rollout.finish(asked, MINE, started, NOW)["became"] == "taken back"
    assert named(asked.releases) == "another"
