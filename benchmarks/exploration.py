"""`python -m benchmarks.exploration`: what a retraining gains from places drawn by chance.

A shop opens with a model that has seen what people buy by themselves. For some weeks it shows that
model's lists, either as they are or with places drawn by chance; then it is retrained: on what was
bought alone, on drawn places as if each had been as likely, and on drawn places by the inverse of
their chance. Judged on the lists that each would show in the week after: what shoppers would take
of them by the simulator's truth, which no model sees. Two kinds of shop, because exploration can
only pay where the list sells something else than what is bought anyway.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.command import add_json, execute
from benchmarks.exploration_fits import (
    SHOWN,
    Events,
    fitted,
    ranked,
    recipe_of,
    source_of,
    written,
)
from benchmarks.exploration_world import (
    Floats,
    Shop,
    Visit,
    World,
    as_table,
    decision,
    item_id,
    item_of,
    purchase,
)
from contract.errors import UserError
from contract.exploration import POOL, ExploreSettings, draw_slots
from contract.figures import Figures
from contract.lists import relevance
from training.data.baskets import Timelines
from training.evaluation import metrics
from training.recommender import Recommender

PROGRAM = "benchmarks.exploration"
WARM, LOGGED = 10, 4  # weeks
_WORLDS: Final = {
    "new": World(),
    "usual": World(staple_taken=1.0),
}


@dataclass(frozen=True)
class Logged:
    """What came of the weeks in which lists were shown: the `folder` of all events, and what was
    taken of a list in the mean, by the truth."""

    folder: Path
    taken: float


@dataclass(frozen=True)
class Round:
    """One seed of one world, up to where the logged weeks begin."""

    shop: Shop
    seed: int
    home: Path
    before: Events
    first: Recommender
    visits: list[list[Visit]]  # of the logged weeks, and of the week after

    @classmethod
    def begun(cls, world: World, seed: int, home: Path) -> "Round":
        """Shoppers who are shown nothing, and a first model of them."""
        rng = np.random.default_rng([seed, 1])
        shop = Shop(world, rng)
        weeks = [shop.visits(rng, week) for week in range(WARM + LOGGED + 1)]
        before = [purchase(one, one.cart) for week in weeks[:WARM] for one in week]
        folder = written(home / "before", shop, before)
        first = fitted(folder, WARM, recipe_of(seed, "explored_weight=0"))
        return cls(shop, seed, home, before, first, weeks[WARM:])

    def logged(self, explore: ExploreSettings) -> Logged:
        """The weeks in which the first model's lists are shown, and what was bought in them."""
        rng = np.random.default_rng([self.seed, 2])
        events, taken = list(self.before), list[float]()
        for week in self.visits[:LOGGED]:
            timelines = Timelines.of(as_table(events))
            for visit, best, scores in ranked(self.first, timelines, week, SHOWN + POOL + 2):
                shown, told = _drawn(rng, best, scores, explore)
                events.append(decision(visit, *told))
                bought = self.shop.taken(rng, visit, shown)
                events.append(purchase(visit, [*visit.cart, *bought]))
                taken.append(float(self.shop.chance(visit.shopper)[shown].sum()))
        name = f"logged-{explore.share:g}"
        return Logged(written(self.home / name, self.shop, events), float(np.mean(taken)))

    def taken_of(self, model: Recommender, logged: Logged) -> dict[str, float]:
        """What is taken of the model's lists in the week after, how many items they show, and how
        well they complete what people came for."""
        source = source_of(logged.folder, WARM + LOGGED)
        taken, shown = list[float](), list[list[int]]()
        for visit, best, _ in ranked(model, source.timelines, self.visits[-1], SHOWN):
            taken.append(float(self.shop.chance(visit.shopper)[best].sum()))
            shown.append(best)
        return {
            "taken": float(np.mean(taken)),
            "items": float(len(np.unique(shown))),
            "NDCG@5": self._completed(model, source.timelines),
        }

    def _completed(self, model: Recommender, timelines: Timelines) -> float:
        """NDCG of half of each cart of the week after, from the other half."""
        rng = np.random.default_rng([self.seed, 4])
        halves, wanted = [], []
        for visit in self.visits[-1]:
            order, half = rng.permutation(visit.cart).tolist(), len(visit.cart) // 2
            if half:
                halves.append(replace(visit, cart=tuple(order[:half])))
                wanted.append(np.array(order[half:]))
        lists = np.array([best for _, best, _ in ranked(model, timelines, halves, SHOWN)])
        return float(metrics.per_case(lists, wanted)["NDCG@5"].mean())

    def best(self) -> float:
        """What would be taken of the lists that the truth would show."""
        found = []
        for visit in self.visits[-1]:
            chance = self.shop.chance(visit.shopper).copy()
            chance[list(visit.cart)] = 0.0
            found.append(float(np.sort(chance)[-SHOWN:].sum()))
        return float(np.mean(found))

    def popular(self) -> float:
        """What would be taken of the lists of what is bought most."""
        count = np.zeros(self.shop.world.items)
        for one in self.before:
            for line in one["items"]:
                count[item_of(line["item_id"])] += 1
        found = []
        for visit in self.visits[-1]:
            free = [item for item in np.argsort(-count).tolist() if item not in visit.cart]
            found.append(float(self.shop.chance(visit.shopper)[free[:SHOWN]].sum()))
        return float(np.mean(found))


def _drawn(
    rng: np.random.Generator, best: list[int], scores: Floats, explore: ExploreSettings
) -> tuple[list[int], tuple[list[dict[str, Any]], dict[str, Any]]]:
    """The list that is shown, and what a gateway logs of it."""
    draws = [(rng.random(), rng.random()) for _ in range(explore.slots)]
    likely = relevance(scores.astype(np.float32)).tolist()
    places, slots = draw_slots(likely, [False] * len(best), SHOWN, explore, draws)
    shown = [best[at] for at in places]
    chance = {one.place: one.propensity for one in slots}
    told = [
        {"item_id": item_id(one), "propensity": chance.get(place, 1.0)}
        for place, one in enumerate(shown)
    ]
    drawn = [
        {
            "index": one.place,
            "usual": item_id(best[one.usual]),
            "pool": [item_id(best[at]) for at in one.pool],
        }
        for one in slots
    ]
    return shown, (told, {"share": explore.share, "slots": drawn})


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Judge exploration.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.3, help="of the draws that explore")
    parser.add_argument("--slots", type=int, default=2, help="last places that are drawn")
    parser.add_argument("--most-loss", type=float, default=0.8)
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--worlds", nargs="+", choices=sorted(_WORLDS), default=list(_WORLDS))
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and False: there is nothing to be void. UserError on bad input."""
    if args.seeds < 1 or any(not weight > 0 for weight in args.weights):
        raise UserError("at least one seed, and weights above 0")
    explore = ExploreSettings(args.share, args.slots, args.most_loss)
    if not explore.on:
        raise UserError("--share: without exploration there is nothing to judge")
    figures = Figures("exploration")
    for world in args.worlds:
        rows, began = defaultdict[str, list[dict[str, float]]](list), time.perf_counter()
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                begun = Round.begun(_WORLDS[world], seed, Path(folder))
                for name, found in _arms(begun, explore, args.weights).items():
                    rows[name].append(found)
        for name, every in rows.items():
            metrics = {key: [one[key] for one in every] for key in every[0]}
            figures.add(f"{world}: {name}", metrics)
        figures.add(f"{world}", {}, seconds=time.perf_counter() - began)
    figures.notes += [
        f"{args.seeds} seeds; `taken`: of a list of {SHOWN} in the week after, by the simulator's "
        "truth; `gain`: over retraining on the same log without drawn places, paired by seed; "
        "`meanwhile`: in the logged weeks; `items`: different ones shown; `NDCG@5`: of the half of "
        "what people came for, from the other half",
        "`usual`: shoppers take what they usually buy; `new`: rather what they do not buy anyway",
    ]
    return figures, False


def _arms(
    begun: Round, explore: ExploreSettings, weights: Sequence[float]
) -> dict[str, dict[str, float]]:
    """What becomes of every way to go on, by its name."""
    greedy, explored = begun.logged(ExploreSettings()), begun.logged(explore)
    off = recipe_of(begun.seed, "explored_weight=0")
    found = {
        "popular": {"taken": begun.popular()},
        "not retrained": begun.taken_of(begun.first, greedy),
        "nothing explored": begun.taken_of(fitted(greedy.folder, WARM + LOGGED, off), greedy)
        | {"meanwhile": greedy.taken},
    }
    base = begun.taken_of(fitted(explored.folder, WARM + LOGGED, off), explored)
    found["explored, not learned"] = base | {"meanwhile": explored.taken}
    ways = [("chances ignored", True, weights[0])]
    ways += [("by inverse chance", False, weight) for weight in weights]
    whatever = "explored_loss=1"
    recipes: dict[str, tuple[bool, tuple[str, ...]]] = {
        f"{name}, weight {weight:g}": (alike, (f"explored_weight={weight}", whatever))
        for name, alike, weight in ways
    }
    recipes["by inverse chance, as loud as validation allows"] = (False, ())
    for name, (alike, settings) in recipes.items():
        chosen = recipe_of(begun.seed, *settings)
        model = fitted(explored.folder, WARM + LOGGED, chosen, alike=alike)
        told = begun.taken_of(model, explored)
        found[name] = told | {"gain": told["taken"] - base["taken"]}
    return found | {"truth": {"taken": begun.best()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = build_parser().parse_args(arguments)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
