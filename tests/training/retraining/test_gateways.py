"""Decisions of champion and challenger timed through two real gateways."""

import json
import shutil
from pathlib import Path

import pytest

from contract.errors import UserError
from training.data.source import read_source
from training.evaluation.released import read_released
from training.gates import operation
from training.pipeline import Outcome
from training.retraining.gateways import LEAST_CASES, Place, through_gateways
from training.retraining.plan import Wish
from training.retraining.questions import Questions


def places(passed: tuple[Wish, Outcome]) -> tuple[Place, Place]:
    wish, outcome = passed
    return (
        Place(wish.releases, wish.models, outcome.plan.champion),
        Place(wish.releases, wish.models, str(outcome.release_id)),
    )


@pytest.fixture(scope="module")
def questions(passed: tuple[Wish, Outcome]) -> Questions:
    """Those of the retraining that passed."""
    wish, outcome = passed
    window = outcome.plan.window
    days: dict[str, str | None] = {
        name: f"{getattr(window, name):%Y-%m-%d}"
        for name in ("validate_from", "train_until", "test_until")
    }
    known = [
        read_released(wish.releases, wish.models, one.release_id).vocabulary
        for one in places(passed)
    ]
    return Questions.of(read_source(wish.data, days), window, known, 90)


@pytest.mark.timeout(900)
def test_both_are_asked_through_gateways_of_their_own_with_histories(
    passed: tuple[Wish, Outcome], questions: Questions
) -> None:
    champion, challenger = places(passed)
    timed = through_gateways(champion, challenger, questions, most_s=120.0)
    assert timed.failed is None
    assert len(timed.champion_ms) == len(timed.challenger_ms) >= LEAST_CASES
    assert (timed.champion_ms > 0).all()
    assert timed.full is not None
    # A machine that is too busy gives cheaper answers; both are asked on the same.
    assert min(timed.full) > 0
    verdict = operation.latency(timed, passed[0].limits)
    assert {one.name for one in verdict.checks} == {"median", "p99", "full"}
    assert "gateway" in verdict.checks[0].said


@pytest.mark.timeout(900)
def test_a_challenger_that_no_gateway_serves_is_refused_and_a_champion_is_bad_input(
    passed: tuple[Wish, Outcome], questions: Questions, tmp_path: Path
) -> None:
    champion, challenger = places(passed)
    broken = tmp_path / "releases"
    shutil.copytree(challenger.releases, broken)
    manifest = broken / challenger.release_id / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"feature_hash": "0" * 64}))
    spoilt = Place(broken, challenger.models, challenger.release_id)
    timed = through_gateways(champion, spoilt, questions)
    assert timed.failed is not None
    assert challenger.release_id in timed.failed
    assert not operation.latency(timed, passed[0].limits).passed
    with pytest.raises(UserError, match=challenger.release_id):
        through_gateways(spoilt, champion, questions)
