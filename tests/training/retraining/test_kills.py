"""A retraining whose process is killed, for real and at any moment, ends as one that was not."""

import contextlib
import json
import os
import random
import signal
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from tests.contract.examples import PROVE
from tests.training.conftest import SMALL
from tests.training.processes import Launcher
from tests.training.retraining.conftest import NOW, MakeWish
from tests.training.retraining.test_pipeline import ROLLED_OUT, STEPS, assert_same
from training.data.fresh_events import read_fresh_events
from training.gates.limits import Limits
from training.pipeline import Outcome, retrain
from training.retraining.plan import Wish, champion_id, planned

# Each kills the process once, at a moment of its own: before which step, and how long after the one
# before it was done.
MOMENTS = (*STEPS, *ROLLED_OUT) if PROVE else ("challenger", "gates", "promote")


def command(wish: Wish) -> list[str]:
    """`tillwise-train retrain`, for the very same wish."""
    usual = Limits()
    told = [
        *("retrain", "--data", wish.data, "--champion", wish.champion, "--until", wish.until),
        *("--releases", wish.releases, "--models", wish.models, "--output", wish.output),
        *("--window-days", wish.window_days, "--validation-days", wish.validation_days),
        *("--folds", wish.folds, "--rollout", wish.rollout, "--latency", wish.latency),
        *("--recipe", "demo"),
    ]
    for setting in (*SMALL, "tower_epochs=3", "ranker_epochs=6"):
        told += ["--set", setting]
    for one in fields(Limits):
        if getattr(wish.limits, one.name) != getattr(usual, one.name):
            told += ["--gate", f"{one.name}={getattr(wish.limits, one.name)}"]
    return [str(word) for word in told]


def killed_before(
    launch: Launcher, wish: Wish, folder: Path, step: str, chance: random.Random
) -> None:
    """Start it, and kill it somewhere in `step`, after those before it were recorded."""
    order = (*STEPS, *ROLLED_OUT)
    place = order.index(step)
    recorded = folder / "steps" / f"{order[place - 1]}.json" if place else folder / "plan.json"
    process = launch.train(*command(wish))
    until = time.monotonic() + 600
    while process.runs() and time.monotonic() < until:
        if recorded.exists() and process.has_begun():
            break
        time.sleep(0.01)
    assert recorded.exists(), process.end()[2][-500:]
    # Steps take from milliseconds to seconds, so the moments are spread over their magnitudes.
    time.sleep(10 ** chance.uniform(-3, 0.5))
    with contextlib.suppress(ProcessLookupError):  # the last step may be through
        os.kill(process.pid, signal.SIGKILL)
    process.end()


@pytest.mark.timeout(7_200 if PROVE else 1_800)
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(
    launch: Launcher, wish: MakeWish, passed: tuple[Wish, Outcome]
) -> None:
    whole, expected = passed
    asked = wish(folds=2, rollout="promote")
    asked = replace(asked, champion=champion_id(asked))  # `live` is another one at the end
    # The day on which it was begun is part of the plan; the rest is any day's.
    _, folder = planned(asked, int(read_fresh_events(asked.data).occurred_us[-1]), NOW)
    chance = random.Random(7)
    for step in MOMENTS:
        killed_before(launch, asked, folder, step, chance)
    status, _, complained = launch.train(*command(asked)).end()
    assert status == 0, complained[-1_000:]
    outcome = retrain(asked, NOW)  # what is recorded, read once more
    assert outcome.folder == folder
    assert outcome.steps.resumed == [*STEPS, *ROLLED_OUT]
    assert_same(whole, expected, asked, outcome)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["created_at"] == NOW.at.isoformat()
    assert asdict(asked.recipe) == asdict(whole.recipe)
