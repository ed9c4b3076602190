"""`retrain`: fresh events -> challenger -> the same window for champion and challenger -> gates ->
release -> canary -> promoted or refused, with a report either way.

Every step is a function of what the steps before it left, and is recorded when it is done
(`training.retraining.steps`), so a retraining that was killed goes on where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from contract.clock import DAY_US, Clock, FixedClock, to_us
from contract.manifest import OFFER_ARMS
from contract.whole_file import replace as replace_file
from training.data.fresh_events import FreshEvents, read_fresh_events
from training.data.source import Source, read_source
from training.evaluation.network_chances import Network, fitted_network, released_network
from training.evaluation.released import Released, read_manifest, read_released
from training.fit import Fit
from training.gates.data import data_health
from training.gates.drift import drift, samples, shoppers
from training.gates.fairness import offers
from training.gates.leakage import frozen_before, known_afterwards, leakage
from training.gates.operation import Timed
from training.gates.uplift import pays
from training.gates.verdict import Verdict
from training.retraining import comparison, folds, report, rollout, staging
from training.retraining.answers import Answers, answers, timed
from training.retraining.gateways import Place, through_gateways
from training.retraining.groups import audited, named, offers_of
from training.retraining.plan import Plan, Wish, planned
from training.retraining.questions import Questions
from training.retraining.steps import Result, Steps
from training.run_folder import read_run, write_run
from training.uplift.evidence import read_evidence

# What the fresh window is held against: of volume the weeks before it, of everything else those
# that the champion learned from, which had gates of their own.
BEFORE_DAYS = 56


@dataclass(frozen=True)
class Outcome:
    """How it ended: `refused` names the gates that said no, none where it passed."""

    plan: Plan
    folder: Path
    verdicts: tuple[Verdict, ...]
    release_id: str | None
    became: str  # promoted, on trial, released, refused, or taken back
    steps: Steps

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """What did not let it pass."""
        return tuple(one for one in self.verdicts if not one.passed)

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / report.REPORT


def retrain(wish: Wish, clock: Clock, *, device: torch.device | None = None) -> Outcome:
    """Do it, or what is left of it. UserError on bad input; a gate's refusal is an outcome."""
    events = read_fresh_events(wish.data)
    plan, folder = planned(wish, int(events.occurred_us[-1]), clock)
    return Retraining(wish, plan, folder, events, clock, device or torch.device("cpu")).run()


class Retraining:
    """One retraining while it runs."""

    def __init__(
        self,
        wish: Wish,
        plan: Plan,
        folder: Path,
        events: FreshEvents,
        clock: Clock,
        device: torch.device,
    ) -> None:
        self.wish, self.plan, self.folder, self.clock = wish, plan, folder, clock
        self.events, self.device = events, device
        self.steps = Steps(folder, plan.key)
        self.verdicts: list[Verdict] = []
        self.release_id: str | None = None

    def run(self) -> Outcome:
        """The straight line; a refusal leaves it for the report."""
        became = self._until_refused()
        outcome = Outcome(
            self.plan, self.folder, tuple(self.verdicts), self.release_id, became, self.steps
        )
        report.write(self.folder, self.wish, outcome)
        return outcome

    def _until_refused(self) -> str:
        if not self._judged("data", self._data):
            return "refused"
        self.steps.run("challenger", self._challenger, self._fitted_files)
        self.steps.run("export", self._export, self._staged_files)
        for side in ("champion", "challenger"):
            self.steps.run(f"ask-{side}", partial(self._ask, side), partial(self._asked, side))
        if not self._judged("gates", self._gates):
            return "refused"
        if self.wish.folds:  # of a model that is refused nobody asks how steady it is
            self.steps.run("folds", self._folds)
        self.release_id = str(
            self.steps.run("release", self._release, self._released_files)["release_id"]
        )
        became = "released"
        if self.wish.rollout != "none":
            self.steps.run("canary", self._canary)
            became = "on trial"
        if self.wish.rollout == "promote":
            became = str(self.steps.run("promote", self._promote)["became"])
        return became

    def _judged(self, name: str, work: Callable[[], Result]) -> bool:
        """Run a step of gates; whether all let the challenger pass."""
        held = self.steps.run(name, work)
        found = [Verdict.parse(one) for one in held["verdicts"]]
        known = {one.gate: one for one in self.verdicts}
        for one in found:  # a gate that is asked at two steps gives one verdict
            before = known[one.gate].checks if one.gate in known else ()
            known[one.gate] = Verdict.of(one.gate, (*before, *one.checks))
        self.verdicts = list(known.values())
        return all(one.passed for one in found)

    # The steps, in their order. Each returns what it wants recorded.

    def _data(self) -> Result:
        """What can be said before anything is fitted."""
        window, limits, events = self.plan.window, self.wish.limits, self.events
        start_us, end_us = to_us(window.train_until), to_us(window.test_until)
        fresh = events.window(start_us, end_us)
        before = events.window(start_us - BEFORE_DAYS * DAY_US, start_us)
        verdicts = [data_health(fresh, before, limits)]
        learned_us = min(to_us(self.plan.champion_until), start_us)
        learned = events.window(learned_us - BEFORE_DAYS * DAY_US, learned_us)
        people = shoppers(events, learned), shoppers(events, fresh)
        verdicts.append(drift(*samples(events, learned, fresh), people, limits))
        verdicts.append(
            leakage(
                [
                    frozen_before("champion", self.plan.champion_until, window.train_until),
                    known_afterwards(events, fresh, limits),
                ]
            )
        )
        offered = offers_of(self.wish.data, start_us, end_us, self._network())
        report = audited(self.wish.demographics, offered.found, limits)
        asked = named(self.wish.demographics)
        verdicts.append(offers(report, limits, asked, offered.unjudged))
        fitted = self.wish.uplift
        verdicts.append(pays(None if fitted is None else read_evidence(fitted)))
        return {
            "verdicts": [one.as_json() for one in verdicts],
            "facts": comparison.facts(events, fresh, before),
        }

    def _network(self) -> Network | None:
        """The uplift network that is to go out: a new one, or the champion's."""
        if self.wish.uplift is not None:
            return fitted_network(self.wish.uplift)
        champion = read_manifest(self.wish.releases, self.plan.champion)
        if OFFER_ARMS not in champion.files:
            return None
        return released_network(self.wish.releases, self.wish.models, self.plan.champion)

    def _challenger(self) -> Result:
        """Fit on everything before the window, into the folder of its run."""
        fit = Fit(
            self.source,
            self.wish.recipe,
            device=self.device,
            checkpoints=self.folder / "checkpoints",
        )
        fitted = fit.run()
        write_run(self.run_folder, fitted, self.wish.recipe, self.source, fit.report, self._fixed)
        return {
            "items": len(fitted.vocabulary.item_ids),
            "gap": fit.report.gap,
            "drawn_places": 0 if fit.drawn is None else len(fit.drawn),
            "explored_weight": fit.report.explored_weight,
            "epochs": {name: one.best_epoch for name, one in fit.report.histories.items()},
        }

    def _folds(self) -> Result:
        """The whole pipeline, cross-validated by shopper and by time."""
        return folds.measured(
            self.source, self.wish.recipe, self.wish.folds, self.plan.days, self.device
        )

    def _export(self) -> Result:
        """The challenger as the very files that would be served, where nobody serves them from."""
        return staging.export_to(
            self._stage, read_run(self.run_folder), self.wish, self.plan, self._fixed
        )

    def _ask(self, side: str) -> Result:
        """The answers of one side, to a file."""
        release = self.champion if side == "champion" else self.challenger
        replace_file(self._answers_file(side), answers(release, self.questions, side).as_bytes())
        return {"release_id": release.manifest.release_id, "questions": len(self.questions.cases)}

    def _gates(self) -> Result:
        """Everything that is judged on answers."""
        champion, challenger = (
            Answers.parse(self._answers_file(side).read_bytes())
            for side in ("champion", "challenger")
        )
        return comparison.judged(
            self.questions,
            (champion, challenger),
            (self.champion.manifest, self.challenger.manifest),
            self._timed(),
            self.wish,
            self.steps.results["export"],
        )

    def _timed(self) -> Timed:
        if self.wish.latency == "process":
            return timed(self.champion, self.challenger, self.questions)
        mine = str(self.steps.results["export"]["release_id"])
        return through_gateways(
            Place(self.wish.releases, self.wish.models, self.plan.champion),
            Place(self._stage / "releases", self._stage / "models", mine),
            self.questions,
        )

    def _release(self) -> Result:
        """From the stage to where gateways look."""
        staging.publish(self._stage, self.wish)
        return {"release_id": self.steps.results["export"]["release_id"]}

    def _canary(self) -> Result:
        return rollout.start(self.wish, str(self.release_id), self.clock)

    def _promote(self) -> Result:
        started_at = self.steps.results["canary"]["started_at"]
        return rollout.finish(self.wish, str(self.release_id), started_at, self.clock)

    # What the steps share; read when the first of them asks.

    @cached_property
    def source(self) -> Source:
        """What the challenger is fitted on and both are asked about."""
        window = self.plan.window
        days: dict[str, str | None] = {
            "validate_from": f"{window.validate_from:%Y-%m-%d}",
            "train_until": f"{window.train_until:%Y-%m-%d}",
            "test_until": f"{window.test_until:%Y-%m-%d}",
        }
        return read_source(self.wish.data, days, drawn=self.wish.recipe.explored_weight > 0)

    @cached_property
    def champion(self) -> Released:
        """The release that is to be beaten."""
        return read_released(self.wish.releases, self.wish.models, self.plan.champion)

    @cached_property
    def challenger(self) -> Released:
        """The staged one."""
        release_id = str(self.steps.results["export"]["release_id"])
        return read_released(self._stage / "releases", self._stage / "models", release_id)

    @cached_property
    def questions(self) -> Questions:
        """The same for both."""
        known = (self.champion.vocabulary, self.challenger.vocabulary)
        return Questions.of(self.source, self.plan.window, known, self.wish.cases)

    @property
    def run_folder(self) -> Path:
        """The challenger's fit."""
        return self.folder / "run"

    @property
    def _fixed(self) -> FixedClock:
        """The moment of the plan: whoever resumes writes the same bytes."""
        return FixedClock(self.plan.created_at)

    @property
    def _stage(self) -> Path:
        return self.folder / "stage"

    def _fitted_files(self) -> list[Path]:
        return sorted(path for path in self.run_folder.iterdir() if path.is_file())

    def _staged_files(self) -> list[Path]:
        return sorted(path for path in self._stage.rglob("*") if path.is_file())

    def _released_files(self) -> list[Path]:
        release_id = self.steps.results["export"]["release_id"]
        return sorted(path for path in (self.wish.releases / release_id).iterdir())

    def _asked(self, side: str) -> list[Path]:
        return [self._answers_file(side)]

    def _answers_file(self, side: str) -> Path:
        return self.folder / f"{side}.npz"
