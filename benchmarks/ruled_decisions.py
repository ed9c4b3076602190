"""What rules add to whole decisions: a gateway in this process decides every checkout of an import
without rules and under each of two books, one after another in an order that is drawn anew for each
checkout, so that whatever else the machine does falls on all of them alike."""

import argparse
import random
import statistics
import time
from collections.abc import Sequence

from benchmarks.checkouts import from_baskets
from benchmarks.in_process import gateway_of
from benchmarks.rule_books import MANY_HOLD, USUAL, Names, book
from benchmarks.twin import live_manifest
from contract.consent import PURPOSES
from contract.figures import Figures
from contract.rule_set import RuleSet
from serving.api.gateway import Gateway
from serving.decision.messages import DecideRequest
from serving.decision.outcome import Decision, SubjectContext
from serving.inference.release import Release

_NONE = "no rules"
_ASKED = {"deadline_ms": 1_000}  # that a busy machine keeps
_WARM_UP = 20


class Spent:
    """Of every checkout in turn: milliseconds of processor time, of all threads and of the event
    loop's alone, of the stage by the clock, and how many rules were followed."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.loop: list[float] = []
        self.stage: list[float] = []
        self.applied: list[int] = []

    def note(self, cpu_s: float, loop_s: float, decision: Decision) -> None:
        """A decision."""
        self.cpu.append(cpu_s * 1e3)
        self.loop.append(loop_s * 1e3)
        self.stage.append(decision.response.timings_ms.get("rules", 0.0))
        self.applied.append(len(decision.response.applied_rules))


async def decided(args: argparse.Namespace) -> dict[str, Spent]:
    """What `args.decisions` decisions of each row took, by its name, over the live release of
    `args.releases`, with `args.rules` rules. Raises UserError."""
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    async with gateway_of(args, manifest) as gateway:
        names = names_of(gateway.live.current)
        books = {_NONE: RuleSet()}
        books |= {kind: RuleSet(book(kind, args.rules, names)) for kind in (USUAL, MANY_HOLD)}
        return await _rounds(gateway, books, bodies, args.decisions)


def names_of(release: Release) -> Names:
    """What rules may name of the catalogue of `release`."""
    paths = set(release.catalogue.category_path)
    return Names(release.vocabulary.item_ids, sorted({name for path in paths for name in path}))


async def _rounds(
    gateway: Gateway, books: dict[str, RuleSet], bodies: Sequence[bytes], decisions: int
) -> dict[str, Spent]:
    spent = {name: Spent() for name in books}
    draw, names = random.Random(0), list(books)
    for number in range(_WARM_UP + decisions):
        draw.shuffle(names)
        for name in names:
            gateway.rules.current = books[name]  # as if it had followed a change
            gateway.decider.query_vectors.clear()  # of the same checkout before
            cpu_s, loop_s, decision = await _decide(gateway, bodies[number % len(bodies)])
            if number >= _WARM_UP:
                spent[name].note(cpu_s, loop_s, decision)
    return spent


async def _decide(gateway: Gateway, body: bytes) -> tuple[float, float, Decision]:
    asked = DecideRequest.model_validate_json(body).model_copy(update=_ASKED)
    who = gateway.subjects.recognise(asked.visitor_id, asked.user_id, None, gpc=asked.gpc)
    subject = SubjectContext(who.subject_id, PURPOSES, who.histories)
    began, began_loop = time.process_time(), time.thread_time()
    decision = await gateway.decider.decide(asked, subject)
    return time.process_time() - began, time.thread_time() - began_loop, decision


def add_rows(figures: Figures, spent: dict[str, Spent]) -> float:
    """The rows of `spent`; returns what the usual rules add in the mean, ms."""
    without = spent[_NONE]
    usual, slowest = statistics.median(without.cpu), _p99(without.cpu)
    added = {name: _added(one.cpu, without.cpu) for name, one in spent.items()}
    for name, one in spent.items():
        figures.add(
            f"decisions, {name}",
            {
                "cpu_p50_ms": [statistics.median(one.cpu)],
                "cpu_p50_times": [statistics.median(one.cpu) / usual],
                "cpu_p99_times": [_p99(one.cpu) / slowest],
                "added_mean_ms": [statistics.fmean(added[name])],
                "added_error_ms": [statistics.stdev(added[name]) / len(added[name]) ** 0.5],
                "added_p50_ms": [statistics.median(added[name])],
                "added_loop_ms": [statistics.fmean(_added(one.loop, without.loop))],
                "stage_p50_ms": [statistics.median(one.stage)],
                "applied": [statistics.fmean(one.applied)],
            },
        )
    figures.notes.append(
        f"decisions: {len(without.cpu)} of each row, in turn, one at a time; processor time of all "
        "threads; `added`: to the same checkout without rules, `added_error_ms`: the mean's "
        "standard error, `added_loop_ms`: by the event loop's thread; `stage`: by the clock; "
        "`applied`: rules that were followed"
    )
    return statistics.fmean(added[USUAL])


def _added(spent: list[float], without: list[float]) -> list[float]:
    return [one - usual for one, usual in zip(spent, without, strict=True)]


def _p99(spent: list[float]) -> float:
    return statistics.quantiles(spent, n=100)[98]
