"""A retraining from events to a live release, refused where something is wrong, and resumed."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contract.clock import FixedClock
from contract.errors import UserError
from contract.manifest import (
    MANIFEST,
    OFFER_ARMS,
    OFFER_UPLIFT,
    ReleaseManifest,
    sha256,
    verify,
)
from contract.rollout import ROLLOUT, Canary, Rollout
from tests.training.conftest import trace
from tests.training.export.test_uplift import fitted, with_features
from tests.training.retraining import sabotage
from tests.training.retraining.conftest import NOW, UNTIL, WINDOW_DAYS, MakeWish
from tests.training.uplift.test_evidence import dear
from tests.training.uplift.test_uplift import planted
from training.evaluation.released import read_released
from training.export import graphs
from training.export.release import export
from training.pipeline import Outcome, retrain
from training.retraining import rollout
from training.retraining.plan import Wish
from training.retraining.report import MEANING
from training.retraining.steps import Steps
from training.run_folder import Run

START = datetime(UNTIL.year, UNTIL.month, UNTIL.day, tzinfo=UTC) - timedelta(days=WINDOW_DAYS)
STEPS = ("data", "challenger", "export", "ask-champion", "ask-challenger", "gates", "folds")
ROLLED_OUT = ("release", "canary", "promote")


def test_a_clean_challenger_passes_every_gate_and_goes_live(passed: tuple[Wish, Outcome]) -> None:
    wish, outcome = passed
    assert {one.gate for one in outcome.verdicts} == set(MEANING)
    assert not outcome.refused, [one.reason for one in outcome.refused]
    assert outcome.became == "promoted"
    assert (wish.releases / "current").read_text() == f"{outcome.release_id}\n"
    told = Rollout.parse((wish.releases / ROLLOUT).read_bytes())
    assert told.canary is None
    assert told.before[-1] == outcome.plan.champion
    released = read_released(wish.releases, wish.models, str(outcome.release_id))
    assert released.manifest.trained_until == START
    # Its models are new versions beside those of the champion, which still stands.
    assert {entry.version for entry in released.manifest.models} == {2}
    assert read_released(wish.releases, wish.models, outcome.plan.champion)


def test_the_report_says_it_first_and_holds_everything(passed: tuple[Wish, Outcome]) -> None:
    _, outcome = passed
    page = outcome.report.read_text()
    assert page.index("Passed, and live") < page.index("The gates")
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)  # nothing from elsewhere
    figures = json.loads((outcome.folder / "report.json").read_text())
    rows = figures["steps"]["gates"]["rows"]
    assert rows["NDCG@5"]["low"] <= rows["NDCG@5"]["challenger"] - rows["NDCG@5"]["champion"]
    assert len(figures["steps"]["folds"]["by_shopper"]) == 2
    assert f"{rows['NDCG@5']['challenger']:.4f}" in page


@pytest.mark.parametrize("name", sabotage.SABOTAGES)
def test_what_is_wrong_is_refused_by_the_gate_that_is_there_for_it(
    name: str,
    wish: MakeWish,
    shop_folder: Path,
    tmp_path: Path,
) -> None:
    spoil, gate = sabotage.SABOTAGES[name]
    data = sabotage.copied(shop_folder, tmp_path / "data")
    spoil(data, START)
    asked = wish(data=data)
    outcome = retrain(asked, NOW)
    assert outcome.became == "refused"
    assert gate in {one.gate for one in outcome.refused}
    assert outcome.report.read_text().count(">Refused<") == 1
    assert (asked.releases / "current").read_text().strip() == outcome.plan.champion
    assert sum(path.is_dir() for path in asked.releases.iterdir()) == 1
    assert all(len(list(model.glob("[0-9]*"))) == 1 for model in asked.models.iterdir())


class Killed(BaseException):
    """Stands for a process that is gone."""


@pytest.mark.timeout(900)
def test_whoever_died_between_any_two_steps_ends_with_the_same_bytes(
    wish: MakeWish,
    passed: tuple[Wish, Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, expected = passed
    asked = wish(folds=2, rollout="promote")
    # Traced anew, because so would another process.
    monkeypatch.setattr(graphs, "to_onnx", trace)
    run = Steps.run
    for doomed in (*STEPS, *ROLLED_OUT):

        def die(self: Steps, name: str, *rest: Any, doomed: str = doomed) -> Any:
            if name == doomed:
                raise Killed
            return run(self, name, *rest)

        monkeypatch.setattr(Steps, "run", die)
        # Another day, another clock: what is written is that of the first one.
        with pytest.raises(Killed):
            retrain(asked, NOW if doomed == "data" else FixedClock(NOW.at + timedelta(days=1)))
    monkeypatch.setattr(Steps, "run", run)
    # The trial began by the later clock; by an earlier one it would not be over.
    outcome = retrain(asked, FixedClock(NOW.at + timedelta(days=1)))
    assert outcome.steps.resumed == [*STEPS, *ROLLED_OUT[:2]]
    assert_same(whole, expected, asked, outcome)


def assert_same(whole: Wish, expected: Outcome, asked: Wish, outcome: Outcome) -> None:
    """The same release, byte by byte, and the same figures but for what a clock measured."""
    assert outcome.became == expected.became
    assert outcome.release_id == expected.release_id
    name = str(outcome.release_id)
    for path in sorted((whole.releases / name).iterdir()):
        assert (asked.releases / name / path.name).read_bytes() == path.read_bytes(), path.name
    for version in sorted(whole.models.glob("*/2/*")):
        own = asked.models / version.relative_to(whole.models)
        assert own.read_bytes() == version.read_bytes(), version
    assert timeless(outcome) == timeless(expected)


def timeless(outcome: Outcome) -> Any:
    """The figures without what a clock measured."""
    told = json.loads((outcome.folder / "report.json").read_text())
    del told["steps"]["gates"]["spent_ms"], told["steps"]["canary"]["started_at"]
    for verdicts in (told["verdicts"], told["steps"]["gates"]["verdicts"]):
        verdicts[:] = [one for one in verdicts if one["gate"] != "latency"]
    return told


def test_a_second_call_does_nothing_again(passed: tuple[Wish, Outcome]) -> None:
    wish, outcome = passed
    champion = replace(wish, champion=outcome.plan.champion)
    again = retrain(champion, FixedClock(NOW.at + timedelta(days=9)))
    assert again.steps.resumed == [*STEPS, *ROLLED_OUT]
    assert again.release_id == outcome.release_id


def test_a_step_is_done_again_when_its_files_changed(tmp_path: Path) -> None:
    made = tmp_path / "made"
    calls = []

    def work() -> dict[str, Any]:
        calls.append(1)
        made.write_text("whole")
        return {"answer": 1}

    for _ in range(2):
        Steps(tmp_path, "key").run("one", work, lambda: [made])
    assert len(calls) == 1
    made.write_text("torn")
    steps = Steps(tmp_path, "key")
    steps.run("one", work, lambda: [made])
    assert len(calls) == 2
    assert Steps(tmp_path, "other").run("one", work, lambda: [made]) == {"answer": 1}
    assert len(calls) == 3


def test_a_release_that_the_guard_took_back_is_not_promoted(
    wish: MakeWish,
) -> None:
    asked = replace(wish(), rollout="promote", canary_minutes=10.0)
    started = rollout.start(asked, "20240501T120000Z-demo", NOW)["started_at"]
    looked: list[float] = []
    clock = FixedClock(NOW.at)

    def meanwhile(seconds: float) -> None:
        looked.append(seconds)
        clock.at += timedelta(seconds=60)
        if len(looked) == 3:
            path = asked.releases / ROLLOUT
            held = Rollout.parse(path.read_bytes())
            live = (asked.releases / "current").read_text().strip()
            taken = held.taken_back("20240501T120000Z-demo", "errors", clock.at, live)
            path.write_bytes(taken.as_bytes())

    live = (asked.releases / "current").read_text()
    told = rollout.finish(asked, "20240501T120000Z-demo", started, clock, meanwhile)
    assert told == {"became": "taken back", "reason": "errors"}
    assert (asked.releases / "current").read_text() == live
    # Undisturbed, it is promoted when the time is over, not before.
    clock = FixedClock(NOW.at)
    looked.clear()
    started = rollout.start(asked, "20240501T120000Z-demo", clock)["started_at"]

    def quiet(seconds: float) -> None:
        looked.append(seconds)
        clock.at += timedelta(seconds=120)

    assert rollout.finish(asked, "20240501T120000Z-demo", started, clock, quiet)["became"] == (
        "promoted"
    )
    assert len(looked) == 5
    assert (asked.releases / "current").read_text() == "20240501T120000Z-demo\n"


def test_a_champion_that_has_seen_the_window_is_refused(wish: MakeWish) -> None:
    outcome = retrain(wish(window_days=25, validation_days=10), NOW)
    assert [one.gate for one in outcome.refused] == ["leakage"]
    assert "it has seen the answers" in outcome.refused[0].reason


def test_unknown_champions_are_bad_input(wish: MakeWish) -> None:
    with pytest.raises(UserError, match="there is no release 'nobody'"):
        retrain(wish(champion="nobody"), NOW)


def test_the_champions_uplift_network_goes_along(run: Run, wish: MakeWish, tmp_path: Path) -> None:
    root = tmp_path / "offering"
    network = fitted(with_features(planted(3_000)[0]), tmp_path / "offers")
    then = FixedClock(datetime(2024, 4, 10, tzinfo=UTC))
    champion = export(run, root / "models", root / "releases", then, {}, uplift=network).manifest
    shelf = {"releases": root / "releases", "models": root / "models"}
    asked = wish(**shelf, output=root / "retraining")
    outcome = retrain(asked, NOW)
    assert outcome.refused == ()
    challenger = ReleaseManifest.model_validate_json(
        (asked.releases / str(outcome.release_id) / MANIFEST).read_bytes()
    )
    before, after = (one.model(OFFER_UPLIFT) for one in (champion, challenger))
    assert list(before.files.values()) == list(after.files.values())
    assert (before.parity, after.version) == (after.parity, before.version + 1)
    assert challenger.files[OFFER_ARMS] == champion.files[OFFER_ARMS]


def test_an_uplift_network_is_not_lost_in_passing(
    run: Run, wish: MakeWish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "older"
    network = fitted(with_features(planted(3_000)[0]), tmp_path / "offers")
    then = FixedClock(datetime(2024, 4, 10, tzinfo=UTC))
    export(run, root / "models", root / "releases", then, {}, uplift=network)
    shelf = {"releases": root / "releases", "models": root / "models"}
    asked = wish(**shelf, output=root / "retraining")
    monkeypatch.setattr("contract.offer_arms.offer_feature_hash", lambda: "f" * 64)
    with pytest.raises(UserError, match=r"learned from offer features .* named with --uplift"):
        retrain(asked, NOW)
    assert not list((root / "retraining").glob("*/challenger*"))


def test_an_uplift_network_whose_offers_do_not_pay_is_refused_before_anything_is_fitted(
    wish: MakeWish, tmp_path: Path
) -> None:
    asked = wish(uplift=fitted(with_features(dear()), tmp_path / "offers"))
    outcome = retrain(asked, NOW)
    (refused,) = outcome.refused
    assert refused.gate == "uplift"
    assert "1,500 decisions of 125 people" in refused.reason
    assert outcome.became == "refused"
    assert list(outcome.steps.results) == ["data"]
    assert (asked.releases / "current").read_text().strip() == outcome.plan.champion


def test_the_stage_is_a_release_that_verifies(passed: tuple[Wish, Outcome]) -> None:
    wish, outcome = passed
    folder = wish.releases / str(outcome.release_id)
    content = (folder / MANIFEST).read_bytes()
    manifest = ReleaseManifest.model_validate_json(content)

    def digest_of(root: str, name: str) -> str | None:
        path = (folder if root == "release" else wish.models) / name
        return sha256(path.read_bytes()) if path.is_file() else None

    assert verify(content, digest_of, release_id=manifest.release_id) == []


def test_a_canary_that_a_person_replaced_is_left_alone(wish: MakeWish) -> None:
    asked = wish()
    started = rollout.start(asked, "20240501T120000Z-demo", NOW)["started_at"]
    path = asked.releases / ROLLOUT
    other = Canary(release_id="another", percent=5, started_at=NOW.at)
    path.write_bytes(Rollout.parse(path.read_bytes()).on_trial(other).as_bytes())
    told = rollout.finish(asked, "20240501T120000Z-demo", started, NOW)
    assert told["became"] == "taken back"
