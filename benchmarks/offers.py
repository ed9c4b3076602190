"""`python -m benchmarks.offers`: what offers add to a decision.

One gateway in this process decides checkouts of an import one by one, in turn without offers and
with books of different sizes, so that whatever else the machine does falls on all of them alike.
Told is the processor time of a decision, all its threads together, and the time of the stage.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.checkouts import from_baskets
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.in_process import gateway_of
from benchmarks.twin import live_manifest
from contract.consent import PURPOSES
from contract.errors import UserError
from contract.figures import Figures
from contract.offers import OfferBook
from serving.api.gateway import Gateway
from serving.decision.messages import DecideRequest
from serving.decision.offer_shelf import DOCUMENT
from serving.decision.outcome import SubjectContext
from serving.state.audit import COMMAND_LINE

PROGRAM = "benchmarks.offers"
# A deadline that a busy machine keeps.
_ASKED = {"deadline_ms": 1_000, "placements": ("recommendations", "offers")}
_AFTER_CHANGE = 3  # decisions that are not counted after a change, which is rare in a shop
_CONDITIONS = (
    "cart.total >= 2000 && size(cart.items) >= 3",
    "'repeat_buyers' in segments || shopper.orders > 10",
    "cart.categories.exists(one, one == 'DAIRY') && context.country != 'US'",
    "'high_value_repeat_buyers' in segments && cart.total > 5000",
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Cost of offers.")
    parser.add_argument("--decisions", type=int, default=1_000, help="of each row")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def books(currency: str) -> dict[str, OfferBook]:
    """What is compared, by the row's name."""
    drawn = {
        "offers": _offers(10, currency, unconditional=False),
        "explore_share": 0.5,
        "margin_rate": 0.4,
    }
    paced = drawn | {"daily_budget": {"amount": 10**9}}
    return {
        "no offers": OfferBook(),
        "10 offers": OfferBook(offers=_offers(10, currency)),
        "10 offers, one per shopper": OfferBook(offers=_offers(10, currency, per_subject=1)),
        "200 offers": OfferBook(offers=_offers(200, currency)),
        "10 offers, by chance": OfferBook.model_validate(drawn),
        "the same, within a day's budget": OfferBook.model_validate(paced),
        "the same, and a cap": OfferBook.model_validate(
            paced | {"frequency_cap": {"times": 1_000, "days": 1}}
        ),
    }


def _offers(
    number: int, currency: str, *, unconditional: bool = True, **limits: int
) -> tuple[Any, ...]:
    """Offers with conditions of all kinds, of which few hold together."""
    return tuple(
        {
            "offer_id": f"offer-{place}",
            "title": "An offer",
            "discount": {"kind": "percent", "percent": 5 + place % 10},
            "currency": currency,
            "unconditional": unconditional,
            "condition": _CONDITIONS[place % len(_CONDITIONS)],
            "limits": {"total": 10_000, "budget": 10**9} | limits,
        }
        for place in range(number)
    )


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
    rows = books(gateway.live.current.catalogue.currency)
    cpu: dict[str, list[float]] = {name: [] for name in rows}
    stage: dict[str, list[float]] = {name: [] for name in rows}
    shown = dict.fromkeys(rows, 0)
    group = 25  # between two changes of the book
    names = list(rows)
    for turn in range(-(-decisions // group) + 1):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            book = rows[name]
            await gateway.control.put_document(
                DOCUMENT, book.model_dump_json(exclude_none=True), None, COMMAND_LINE
            )
            await gateway.follow_offers()
            gateway.decider.query_vectors.clear()  # of the same checkouts in the row before
            each = group + _AFTER_CHANGE
            some = [bodies[(turn * each + n) % len(bodies)] for n in range(each)]
            for place, body in enumerate(some):
                asked = DecideRequest.model_validate_json(body)
                asked = asked.model_copy(update=_ASKED)
                who = gateway.subjects.recognise(
                    asked.visitor_id, asked.user_id, None, gpc=asked.gpc
                )
                subject = SubjectContext(who.subject_id, PURPOSES, who.histories)
                began = time.process_time()
                decision = await gateway.decider.decide(asked, subject)
                spent = time.process_time() - began
                if turn and place >= _AFTER_CHANGE:  # the first turn warms up
                    cpu[name].append(spent * 1e3)
                    stage[name].append(decision.response.timings_ms.get("offers", 0.0))
                    shown[name] += bool(decision.response.offers)
    return _figures(cpu, stage, shown)


def _figures(
    cpu: dict[str, list[float]], stage: dict[str, list[float]], shown: dict[str, int]
) -> Figures:
    figures = Figures("offers")
    usual, slowest = statistics.median(cpu["no offers"]), _p99(cpu["no offers"])
    for name, spent in cpu.items():
        median = statistics.median(spent)
        figures.add(
            name,
            {
                "cpu_p50_ms": [median],
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
        "at: 1.2; `shown`: share of decisions with an offer"
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
