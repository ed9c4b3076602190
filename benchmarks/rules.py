"""`python -m benchmarks.rules`: what so many active rules cost a decision, in processor time.

Matching, from the values of one checkout to the rules that hold, and applying them to a draft of
250 candidates, as the last stage of a decision does. Books of different kinds: what shops write
(each rule for a segment, an item of the cart, a category, a region, a device or an amount), amounts
alone, which no index helps, and the same again with every rule holding.

With `--releases`, whole decisions as well, over the live release there: for rules on products the
other stages do other work too, and in the middle of a decision everything costs more than alone.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks import ruled_decisions
from benchmarks.command import Missed, add_data, add_json, execute
from benchmarks.rule_books import CONDITIONS, USUAL, Names, book
from contract.errors import UserError
from contract.events import EventContext
from contract.expression_variables import (
    CartLine,
    Suggested,
    cart_values,
    context_values,
    decision_values,
    shopper_values,
)
from contract.expressions import Facts
from contract.figures import Figures
from contract.rule_apply import apply
from contract.rule_draft import Draft
from contract.rule_set import RuleSet, checked_set
from contract.segments import SEGMENTS

PROGRAM = "benchmarks.rules"
MOST_MS = 1.0
_ITEMS, _CATEGORIES, _CANDIDATES = 20_000, 300, 250
_NAMES = Names([f"i{one}" for one in range(_ITEMS)], [f"c{one}" for one in range(_CATEGORIES)])
_PATHS = {f"i{one}": (f"c{one % _CATEGORIES}", f"d{one % 20}") for one in range(_ITEMS)}
_MEMBERS = {
    f"c{one}": [f"i{one + _CATEGORIES * n}" for n in range(9)] for one in range(_CATEGORIES)
}
_NOW = datetime(2026, 1, 5, 18, tzinfo=UTC)
_HERE = EventContext(device="mobile", country="DE", region="BE", timezone="Europe/Berlin")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time rules.")
    parser.add_argument("--rules", type=int, default=500)
    parser.add_argument("--checkouts", type=int, default=2_000)
    parser.add_argument(
        "--releases", type=Path, metavar="DIR", help="decide over the live release there as well"
    )
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--decisions", type=int, default=1_000, help="of each row over a release")
    add_data(parser)
    add_json(parser)
    return parser


@dataclass(frozen=True)
class _Shop:
    """Everything is sold and every offer is valid, so that no rule has it easier than it may."""

    def sellable(self, item_id: str) -> bool:
        return True

    def categories(self, item_ids: Iterable[str]) -> Iterable[Sequence[str]]:
        return [_PATHS[one] for one in item_ids]

    def members(self, category: str, limit: int) -> Sequence[str]:
        return _MEMBERS[category][:limit]

    def may_give(self, offer_id: str) -> bool:
        return True

    def go_together(self, offer_ids: Sequence[str]) -> bool:
        return len(offer_ids) < 2


def _checkout(draw: np.random.Generator) -> tuple[Facts, Draft]:
    cart = draw.integers(_ITEMS, size=draw.integers(1, 20))
    lines = [
        CartLine(f"i{one}", 1, int(draw.integers(100, 5_000)), tuple(_PATHS[f"i{one}"]))
        for one in cart
    ]
    found = [f"i{one}" for one in draw.choice(_ITEMS, _CANDIDATES, replace=False)]
    held = [SEGMENTS[one] for one in draw.choice(len(SEGMENTS), 3, replace=False)]
    categories = {name for one in found[:5] for name in _PATHS[one]}
    values = (
        shopper_values(
            known=True,
            signed_in=True,
            first_order=None,
            orders=int(draw.integers(20)),
            segments=held,
        )
        | cart_values(lines, "EUR")
        | context_values(_HERE, _NOW)
        | decision_values(Suggested(tuple(found[:5]), tuple(categories)))
    )
    return Facts(values), Draft(found, 5, (), ("card", "invoice"), ("home",))


def measured(rules: RuleSet, checkouts: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of a decision under `rules`, and how many held."""
    draw, shop = np.random.default_rng(1), _Shop()
    spent: list[float] = []
    held: list[int] = []
    for number in range(checkouts + 50):
        facts, draft = _checkout(draw)
        began = time.thread_time()
        matched = rules.matching(facts, _NOW, _HERE)
        if matched.rules:
            apply(matched.rules, draft, shop)
        took = time.thread_time() - began
        if number >= 50:
            spent.append(took * 1_000)
            held.append(len(matched.rules))
    told = {f"p{q}_ms": [float(np.percentile(spent, q))] for q in (50, 90, 99)}
    mean = {"mean_ms": [float(np.mean(spent))], "rules_that_hold": [float(np.mean(held))]}
    return told | mean


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures. Raises UserError, and Missed where the usual book takes too long."""
    if not 1 <= args.rules <= 1_000 or args.checkouts < 1:
        raise UserError("--rules must be 1 to 1000, --checkouts at least 1")
    if args.decisions < 10:
        raise UserError("--decisions must be at least 10")
    figures = Figures("rules")
    usual = _alone(args, figures)
    missed = []
    if usual > MOST_MS:
        missed.append(f"matching and applying the usual rules takes {usual:.2f} ms")
    if args.releases is not None:
        added = ruled_decisions.add_rows(figures, asyncio.run(ruled_decisions.decided(args)))
        if added > MOST_MS:
            missed.append(f"a decision under the usual rules takes {added:.2f} ms more")
    if missed:
        raise Missed(figures, "; ".join(missed))
    return figures, False


def _alone(args: argparse.Namespace, figures: Figures) -> float:
    """The rows of matching and applying; returns what the usual book takes in the mean, ms."""
    usual = 0.0
    for kind in CONDITIONS:
        began = time.thread_time()
        rules = checked_set(book(kind, args.rules, _NAMES))
        saved = time.thread_time() - began
        found = measured(rules, args.checkouts)
        figures.add(kind, found | {"saving_s": [saved]})
        usual = found["mean_ms"][0] if kind == USUAL else usual
    figures.notes.append(
        f"{args.rules} active rules, {args.checkouts} checkouts, {_CANDIDATES} candidates; "
        f"processor time of matching and applying; aimed at: {MOST_MS:g} ms in the mean"
    )
    return usual


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    args = build_parser().parse_args(arguments)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
