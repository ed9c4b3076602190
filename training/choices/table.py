"""How well the order of payments and deliveries foresees what is taken, beside their popularity in
the shopper's region: chosen on a middle part of the choices, judged on the last."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contract.choices import ChoiceWeights
from contract.errors import UserError
from contract.figures import Figures
from training.choices.examples import OLIST, Choice, Kind, choices_in, olist_payments
from training.choices.fit import chosen, fit

KINDS: tuple[Kind, ...] = ("payment", "shipping")
SPLITS = 5  # of choices that have no time
_TRAIN, _VALIDATE = 0.7, 0.85
_RESAMPLES = 1_000
_LEAST = 200  # choices to split and judge
_MOST_FOREIGN = 3  # regions told one by one

Floats = npt.NDArray[np.float64]
Shares = Callable[[Choice], Floats]


@dataclass(frozen=True)
class Judged:
    """One kind of choice on one split: the weights, and of each judged choice the log-loss and
    whether the first was taken, of ours and by popularity."""

    weights: ChoiceWeights
    choices: Sequence[Choice]
    loss: Mapping[str, Floats]
    first: Mapping[str, Floats]


def judged(choices: Sequence[Choice]) -> Judged:
    """Fitted on the first part of `choices`, its settings chosen on the second, fitted again on
    both, judged on the last. Raises UserError where there are too few."""
    if len(choices) < _LEAST:
        raise UserError(f"{len(choices)} choices are too few, {_LEAST} are needed")
    one, two = (int(share * len(choices)) for share in (_TRAIN, _VALIDATE))
    weights = fit(choices[:two], *chosen(choices[:one], choices[one:two]))
    usual = Popularity(choices[:two])
    ways: dict[str, Shares] = {
        "tillwise": lambda c: weights.likely(c.options, c.context, c.value, c.own),
        "popularity": usual,
    }
    last = choices[two:]
    shares = {name: [way(choice) for choice in last] for name, way in ways.items()}
    taken = [choice.taken for choice in last]
    return Judged(
        weights,
        last,
        {
            name: np.array([-np.log(row[at]) for row, at in zip(rows, taken, strict=True)])
            for name, rows in shares.items()
        },
        {
            name: np.array([float(row.argmax() == at) for row, at in zip(rows, taken, strict=True)])
            for name, rows in shares.items()
        },
    )


class Popularity:
    """The share of each option in the shopper's region, of what may be chosen there; a region of
    which little is known is drawn to all of them, as ten choices would."""

    _PRIOR = 10.0

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._everywhere: Counter[str] = Counter()
        self._by_region: dict[str, Counter[str]] = defaultdict(Counter)
        for choice in choices:
            name = choice.options[choice.taken].id
            self._everywhere[name] += 1
            self._by_region[choice.context.region or ""][name] += 1

    def __call__(self, choice: Choice) -> Floats:
        here = self._by_region.get(choice.context.region or "", Counter())
        names = [option.id for option in choice.options]
        overall = np.array([self._everywhere[name] + 1.0 for name in names])
        counts = np.array([float(here[name]) for name in names])
        drawn = counts + self._PRIOR * overall / overall.sum()
        found: Floats = drawn / drawn.sum()
        return found


def gain(judged: Judged, seed: int) -> tuple[float, float, float]:
    """By how much our log-loss is lower than popularity's, and the bootstrap's 95 % interval, in
    which a shopper's choices stay together."""
    difference = judged.loss["popularity"] - judged.loss["tillwise"]
    who = np.unique([choice.subject for choice in judged.choices], return_inverse=True)[1]
    total, count = np.bincount(who, difference), np.bincount(who)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(total), size=(_RESAMPLES, len(total)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def choices_table(path: Path) -> Figures:
    """The table of `path`: a folder with a log of checkouts, or Olist's order payments, where the
    value of the order is all that may be known. Raises UserError."""
    figures = Figures("benchmark choices")
    if path.is_file() or (path / OLIST).exists():
        every = olist_payments(path if path.is_file() else path / OLIST)
        rng = np.random.default_rng(0)
        found = {"payment": [judged(_shuffled(every, rng)) for _ in range(SPLITS)]}
        figures.notes.append(
            f"Olist has no times, regions or shoppers here: {SPLITS} seeded splits, from the "
            "order's value alone. There is no public data of how people choose a delivery"
        )
    else:
        found = {kind: [judged(choices_in(path, kind))] for kind in KINDS}
        figures.notes.append("split by time: 70 % to fit, 15 % to choose, 15 % to judge")
    _rows(figures, found)
    return figures


def _shuffled(choices: Sequence[Choice], rng: np.random.Generator) -> list[Choice]:
    return [choices[at] for at in rng.permutation(len(choices))]


def _rows(figures: Figures, found: Mapping[str, Sequence[Judged]]) -> None:
    for way in ("tillwise", "popularity"):
        figures.add(
            way,
            {
                f"{kind} {name}": [float(getattr(one, column)[way].mean()) for one in several]
                for kind, several in found.items()
                for name, column in (("log-loss", "loss"), ("top-1", "first"))
            },
        )
    for kind, several in found.items():
        for seed, one in enumerate(several):
            mean, low, high = gain(one, seed)
            figures.notes.append(
                f"{kind}: log-loss lower than by popularity by {mean:.4f} [{low:.4f}, {high:.4f}]"
            )
        for name, kept in _slices(several[0].choices).items():
            for way in ("tillwise", "popularity"):
                figures.add(
                    f"{way}/{kind}, {name}",
                    {
                        f"{kind} log-loss": [float(several[0].loss[way][kept].mean())],
                        f"{kind} top-1": [float(several[0].first[way][kept].mean())],
                    },
                )


def _slices(choices: Sequence[Choice]) -> dict[str, npt.NDArray[np.bool_]]:
    """Parts of the judged choices that hold enough of them."""
    value = np.array([choice.value for choice in choices])
    third, two_thirds = np.quantile(value, (1 / 3, 2 / 3))
    known = np.array([bool(choice.own) for choice in choices])
    parts = {
        "chose before": known,
        "first choice": ~known,
        "small carts": value <= third,
        "large carts": value > two_thirds,
    }
    for device in sorted({c.context.device for c in choices if c.context.device is not None}):
        parts[f"on {device}"] = np.array([c.context.device == device for c in choices])
    regions = Counter(c.context.region for c in choices if c.context.region is not None)
    for region, _ in regions.most_common(_MOST_FOREIGN):
        parts[f"in {region}"] = np.array([c.context.region == region for c in choices])
    return {name: kept for name, kept in parts.items() if kept.sum() >= 50 and not kept.all()}
