"""The `uplift` protocol: seeded splits by person, the network beside T-, X- and DR-learners,
targeting by propensity, everybody and nobody; on simulated shoppers the oracle too."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from contract.errors import UserError
from contract.figures import Figures
from training.commands import peak_mib
from training.data.checkouts import read_offer_log, read_true_probabilities
from training.data.hillstrom import read_hillstrom
from training.data.offer_log import Floats, OfferLog, margins
from training.evaluation import uplift_metrics as metrics
from training.evaluation import uplift_plots as plots
from training.uplift.fit import UpliftRecipe, fit_uplift, predicted
from training.uplift.learners import LEARNERS

NETWORK = "tillwise"
RESAMPLES = 100
_SHARES = (0.6, 0.2, 0.2)  # of people: to learn from, to choose on, to test on
_FEWEST = 1_000

Chosen = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One seeded split; `truth` [N, A] of the test rows where somebody knows it. `learned` are the
    rows of `train` and `validation` in the order of the log."""

    learned: OfferLog
    train: OfferLog
    validation: OfferLog
    test: OfferLog
    truth: Floats | None
    seed: int

    @classmethod
    def of(cls, log: OfferLog, truth: Floats | None, seed: int) -> "Split":
        """Every person is on one side."""
        place = np.random.default_rng(seed).random(int(log.subject.max()) + 1)[log.subject]
        train = place < _SHARES[0]
        test = place >= _SHARES[0] + _SHARES[1]
        known = None if truth is None else truth[test]
        learned, validation = ~test, ~test & ~train
        return cls(
            *(log.take(learned), log.take(train), log.take(validation), log.take(test)),
            truth=known,
            seed=seed,
        )

    def learning_from(self, decisions: int) -> "Split":
        """The same test rows, and as many of the other people, at random, as have made up to
        `decisions` in all."""
        people, count = np.unique(self.learned.subject, return_counts=True)
        order = np.random.default_rng(self.seed).permutation(len(people))
        kept = people[order[np.cumsum(count[order]) <= decisions]]
        fewer = {
            name: part.take(np.isin(part.subject, kept))
            for name, part in vars(self).items()
            if name in ("learned", "train", "validation")
        }
        return replace(self, **fewer)

    def of_validation(self, learned: Floats) -> Floats:
        """What was said of the `learned` rows, of those of `validation` alone."""
        chosen: Floats = learned[np.isin(self.learned.subject, self.validation.subject)]
        return chosen


@dataclass
class _Row:
    """What one way to decide came to, seed by seed; areas with their resamples [1 + R]."""

    auuc: list[Floats] = field(default_factory=list)
    qini: list[Floats] = field(default_factory=list)
    value: list[Floats] = field(default_factory=list)
    more: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class UpliftTable:
    """Collects rows over the splits of one log."""

    log: OfferLog
    truth: Floats | None
    recipe: UpliftRecipe = field(default_factory=UpliftRecipe)
    rows: dict[str, _Row] = field(default_factory=dict)

    def add(self, split: Split) -> Floats:
        """Fit and score everything on `split`; returns the network's chances on the test rows."""
        weight = metrics.resamples(len(split.test), RESAMPLES, split.seed)
        began = time.perf_counter()
        fitted = fit_uplift(split.learned, self.recipe, split.seed)
        chances = predicted(fitted.model, split.test)[0]
        spent = time.perf_counter() - began
        self._score(NETWORK, split, weight, chances, chances[:, 1:] - chances[:, :1], spent)
        slope = [
            _slope(*metrics.calibration(split.test, arm, chances[:, arm] - chances[:, 0]))
            for arm in range(1, len(self.log.arms))
        ]
        self._more(NETWORK, "calibration slope", float(np.mean(slope)))
        for name, learner in LEARNERS.items():
            began = time.perf_counter()
            level, effect = learner(split.train, split.validation, split.test, split.seed)
            told = np.concatenate([level[:, None], np.clip(level[:, None] + effect, 0, 1)], axis=1)
            self._score(name, split, weight, told, effect, time.perf_counter() - began)
        self._targeting(split, weight, split.of_validation(fitted.out_of_fold), chances)
        return chances

    def _targeting(self, split: Split, weight: Floats, checked: Floats, chances: Floats) -> None:
        """Policies that know nothing of effects, and the one that knows them all."""
        test, size = split.test, len(split.test)
        self._areas("propensity", test, chances[:, 1:], weight)
        self._policy("propensity", split, by_propensity(split, checked, chances), weight)
        self._policy("nobody", split, np.zeros(size, np.int64), weight)
        for arm in range(1, len(self.log.arms)):
            everybody = np.full(size, arm)
            self._policy(f"everyone/{self.log.arms[arm]}", split, everybody, weight)
        if split.truth is not None:
            effect = split.truth[:, 1:] - split.truth[:, :1]
            self._score("oracle", split, weight, split.truth, effect, 0.0)

    def _score(
        self,
        name: str,
        split: Split,
        weight: Floats,
        chances: Floats,
        effect: Floats,
        seconds: float,
    ) -> None:
        self._areas(name, split.test, effect, weight)
        self._policy(name, split, margins(split.test, chances).argmax(1), weight)
        self.rows[name].seconds += seconds

    def _areas(self, name: str, test: OfferLog, effect: Floats, weight: Floats) -> None:
        """The mean over the arms, each against no offer."""
        both = [
            metrics.areas(test, arm + 1, effect[:, arm], weight) for arm in range(effect.shape[1])
        ]
        row = self.rows.setdefault(name, _Row())
        row.auuc.append(np.mean([auuc for auuc, _ in both], axis=0))
        row.qini.append(np.mean([qini for _, qini in both], axis=0))

    def _policy(self, name: str, split: Split, chosen: Chosen, weight: Floats) -> None:
        test, at = split.test, np.arange(len(split.test))
        earned = test.outcome * (test.margin - test.reduction[at, test.arm])
        row = self.rows.setdefault(name, _Row())
        row.value.append(metrics.policy_value(test, chosen, earned, weight))
        if split.truth is not None:
            gained = margins(test, split.truth)
            gained = gained - gained[:, :1]
            best = float(gained.max(1).mean())
            brought = float(gained[at, chosen].mean())
            self._more(name, "margin gained", brought)
            self._more(name, "of oracle", brought / best if best > 0 else float("nan"))

    def _more(self, name: str, metric: str, value: float) -> None:
        self.rows[name].more.setdefault(metric, []).append(value)

    def figures(self, command: str) -> Figures:
        """The table: every figure with the ends of its 95 % bootstrap interval."""
        figures = Figures(command)
        for name, row in self.rows.items():
            told: dict[str, list[float]] = {}
            for metric, values in (
                ("AUUC", row.auuc),
                ("Qini", row.qini),
                ("policy value", row.value),
            ):
                told |= _with_ends(metric, values)
            seconds = row.seconds or None
            figures.add(name, told | row.more, seconds=seconds, peak_mib=peak_mib())
        best = max(LEARNERS, key=lambda name: float(np.mean([v[0] for v in self.rows[name].auuc])))
        pairs = zip(self.rows[NETWORK].auuc, self.rows[best].auuc, strict=True)
        apart = [ours - theirs for ours, theirs in pairs]
        figures.add(f"{NETWORK} - {best}", _with_ends("AUUC", apart))
        low, high = metrics.interval(np.mean(apart, axis=0)[1:])
        mean = float(np.mean([one[0] for one in apart]))
        figures.notes.append(
            f"{NETWORK} - {best} (the best learner): AUUC {mean:+.5f}, mean over the splits, 95 % "
            f"bootstrap {low:+.5f} to {high:+.5f}"
        )
        return figures


def by_propensity(split: Split, checked: Floats, chances: Floats) -> Chosen:
    """Targeting as it is usually done: one arm for those most likely to buy with it. The arm, and
    for how many, are what earned most on the validation rows (`checked` are their chances)."""
    log = split.validation
    at = np.arange(len(log))
    earned = log.outcome * (log.margin - log.reduction[at, log.arm])
    best, arm, threshold = -np.inf, 0, np.inf
    for candidate in range(1, len(log.arms)):
        for share in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
            least = float(np.quantile(checked[:, candidate], 1.0 - share))
            chosen = np.where(checked[:, candidate] >= least, candidate, 0)
            worth = float(metrics.policy_value(log, chosen, earned, np.ones((1, len(log))))[0])
            if worth > best:
                best, arm, threshold = worth, candidate, least
    return np.where(chances[:, arm] >= threshold, arm, 0)


def enough_asked(decisions: int | None) -> None:
    """UserError where so few `decisions` are to be learned from that nothing would be."""
    if decisions is not None and decisions < _FEWEST:
        raise UserError(f"--decisions {decisions}: at least {_FEWEST} are needed")


def enough(log: OfferLog, path: Path) -> None:
    """UserError where the `log` at `path` is too small."""
    if len(log) < _FEWEST:
        raise UserError(f"{path}: {len(log)} decisions; at least {_FEWEST} are needed")


def uplift_table(
    path: Path, seeds: int, output: Path | None, decisions: int | None = None
) -> Figures:
    """The table of the log at `path` (Hillstrom's file, or a folder with a log of checkouts) over
    `seeds` splits, learned from `decisions` at most; pictures go to `output`. UserError as the
    readers raise it, and for too few decisions."""
    enough_asked(decisions)
    public = path.is_file()
    log = read_hillstrom(path) if public else read_offer_log(path)
    truth = None if public else read_true_probabilities(path)
    enough(log, path)
    table = UpliftTable(log, truth)
    first: tuple[Split, Floats] | None = None
    sizes: list[int] = []
    for seed in tqdm(range(seeds), desc="uplift", unit="split", disable=None):
        split = Split.of(log, truth, seed)
        if decisions is not None:
            split = split.learning_from(decisions)
        sizes.append(len(split.learned))
        chances = table.add(split)
        first = first or (split, chances)
    figures = table.figures("benchmark uplift")
    figures.notes += _notes(log, truth, sizes)
    if output is not None and first is not None:
        figures.notes += _pictures(*first, output)
    return figures


def _pictures(split: Split, chances: Floats, output: Path) -> list[str]:
    test, arms = split.test, split.test.arms
    parts = {
        arms[arm]: metrics.calibration(test, arm, chances[:, arm] - chances[:, 0])
        for arm in range(1, len(arms))
    }
    calibration = plots.calibration_plot(parts, f"Effects of {len(test):,} test rows, split 0")
    written = plots.write(calibration, output, "uplift_calibration")
    curves = {}
    for arm in range(1, len(arms)):
        rows = np.flatnonzero((test.arm == arm) | (test.arm == 0))
        rows = rows[metrics.best_first((chances[:, arm] - chances[:, 0])[rows])]
        weight = 1.0 / test.propensity[rows, test.arm[rows]]
        share, gain = metrics.uplift_curve(test.outcome[rows], test.arm[rows] == arm, weight[None])
        curves[arms[arm]] = (share[0], gain[0])
    written += plots.write(
        plots.gain_plot(curves, "Gain by share targeted, split 0"), output, "uplift_gain"
    )
    return [f"pictures: {', '.join(path.name for path in written)}"]


def _notes(log: OfferLog, truth: Floats | None, sizes: list[int]) -> list[str]:
    people = len(np.unique(log.subject))
    notes = [
        f"{len(log)} decisions of {people} people, arms {', '.join(log.arms)}; "
        f"{len(sizes)} splits by person: 60 % learned from, 20 % chosen on, 20 % tested; each "
        "member of the network learns from four fifths of the first 80 %, and stops by the fifth",
        f"decisions learned from and chosen on: {', '.join(f'{size:,}' for size in sizes)}",
        "AUUC, Qini: mean over the arms against no offer, in outcomes per person; policy value: "
        "what is earned per decision under the policy, from the rows that got its arm by chance; "
        f"low and high: {RESAMPLES} bootstrap resamples of the test rows",
        "peak MiB is of the whole process so far, not of the row alone",
    ]
    if truth is not None:
        notes.append(
            "synthetic; margin gained: true expected margin per decision over no offer, minor "
            "units; the truth is used for measuring alone"
        )
    return notes


def _with_ends(metric: str, values: list[Floats]) -> dict[str, list[float]]:
    """One value a seed, and the ends of its interval."""
    if not values:
        return {}
    ends = [metrics.interval(value[1:]) for value in values]
    return {
        metric: [float(value[0]) for value in values],
        f"{metric} low": [low for low, _ in ends],
        f"{metric} high": [high for _, high in ends],
    }


def _slope(told: Floats, seen: Floats, error: Floats) -> float:
    """Of observed on predicted effects, weighed by their precision: 1 where all is as predicted."""
    weight = 1.0 / np.maximum(error, 1e-9) ** 2
    centre, level = np.average(told, weights=weight), np.average(seen, weights=weight)
    spread = float((weight * (told - centre) ** 2).sum())
    return float((weight * (told - centre) * (seen - level)).sum()) / max(spread, 1e-12)
