"""`python -m benchmarks.offers`: what offers add to a decision.

One gateway in this process decides every checkout of an import without offers and with books of
different sizes, one after another in an order that is drawn anew for each checkout, so that
whatever else the machine does falls on all of them alike. Told is the processor time of a decision,
all its threads together, and the time of the stage.
"""

import argparse
import asyncio
import copy
import random
import statistics
import sys
import time
from collections.abc import Sequence

from benchmarks.checkouts import from_baskets
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.in_process import gateway_of
from benchmarks.offer_books import NONE, books
from benchmarks.twin import live_manifest
from contract.consent import PURPOSES
from contract.errors import UserError
from contract.figures import Figures
from serving.api.gateway import Gateway
from serving.decision.messages import DecideRequest
from serving.decision.offer_shelf import CompiledBook, OfferShelf
from serving.decision.outcome import SubjectContext

PROGRAM = "benchmarks.offers"
# A deadline that a busy machine keeps.
_ASKED = {"deadline_ms": 1_000, "placements": ("recommendations", "offers")}
_AGAIN = "no offers, again"  # what differs from the first row is the machine's
_WARM_UP = 20


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Cost of offers.")
    parser.add_argument("--decisions", type=int, default=1_000, help="of each row")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and False: there is nothing to be void. Raises UserError."""
    if args.decisions < 10:
        raise UserError("--decisions must be at least 10")
    return asyncio.run(_measure(args)), False


async def _measure(args: argparse.Namespace) -> Figures:
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    async with gateway_of(args, manifest) as gateway:
        return await _rounds(gateway, bodies, args.decisions)


async def _rounds(gateway: Gateway, bodies: Sequence[bytes], decisions: int) -> Figures:
    shelves = await _shelves(gateway)
    cpu: dict[str, list[float]] = {name: [] for name in shelves}
    stage: dict[str, list[float]] = {name: [] for name in shelves}
    shown = dict.fromkeys(shelves, 0)
    draw, names = random.Random(0), list(shelves)
    for number in range(_WARM_UP + decisions):
        draw.shuffle(names)
        for name in names:
            gateway.decider.shelf = shelves[name]
            gateway.decider.query_vectors.clear()  # of the same checkout in the row before
            asked = DecideRequest.model_validate_json(bodies[number % len(bodies)])
            asked = asked.model_copy(update=_ASKED)
            who = gateway.subjects.recognise(asked.visitor_id, asked.user_id, None, gpc=asked.gpc)
            subject = SubjectContext(who.subject_id, PURPOSES, who.histories)
            began = time.process_time()
            decision = await gateway.decider.decide(asked, subject)
            spent = time.process_time() - began
            if number >= _WARM_UP:
                cpu[name].append(spent * 1e3)
                stage[name].append(decision.response.timings_ms.get("offers", 0.0))
                shown[name] += bool(decision.response.offers)
    return _figures(cpu, stage, shown)


async def _shelves(gateway: Gateway) -> dict[str, OfferShelf]:
    """Each row's book as it stands a while after it was written."""
    shelves = {}
    for name, book in books(gateway.live.current.catalogue.currency).items():
        shelf = gateway.shelf.with_draft(CompiledBook.of(book))
        shelf.pacing = copy.copy(shelf.pacing)
        await shelf.follow_uses(gateway.clock.now())
        shelves[name] = shelf
    return shelves | {_AGAIN: shelves[NONE]}


def _figures(
    cpu: dict[str, list[float]], stage: dict[str, list[float]], shown: dict[str, int]
) -> Figures:
    figures = Figures("offers")
    usual, slowest = statistics.median(cpu[NONE]), _p99(cpu[NONE])
    for name, spent in cpu.items():
        median = statistics.median(spent)
        figures.add(
            name,
            {
                "cpu_p50_ms": [median],
                "cpu_p50_times": [median / usual],
                "cpu_added_ms": [median - usual],
                "cpu_p99_ms": [_p99(spent)],
                "cpu_p99_times": [_p99(spent) / slowest],
                "stage_p50_ms": [statistics.median(stage[name])],
                "stage_p99_ms": [_p99(stage[name])],
                "shown": [shown[name] / len(spent)],
            },
        )
    figures.notes.append(
        f"{len(next(iter(cpu.values())))} decisions of each row, in turn, one at a time; processor "
        "time of all threads, medians; `cpu_p99_times`: the p99 over that without offers, aimed "
        f"at: 1.2; `shown`: share of decisions with an offer; `{_AGAIN}` differs from the first "
        "row by what the machine does"
    )
    return figures


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
