"""`python -m benchmarks.load`: drives any running gateway at a rate and says how long answers took.

Percentiles are of what was answered 2xx; refusals (429) and errors, which are everything else, are
counted beside them. The exit status is 3 when the figures are void, because the generator itself
was late (p99 of its lag over 2 ms), when more than 1 % of the requests ended in an error
(`--most-errors`), and when nothing was answered at all.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from pathlib import Path

from benchmarks.checkouts import DECIDE, check_items, from_baskets, from_gateway, probe
from benchmarks.command import Missed, add_json, execute
from benchmarks.generator import (
    LAG_LIMIT_MS,
    Generator,
    Options,
    Samples,
    describe_statuses,
    run_precisely,
)
from benchmarks.http_client import Request, Target
from benchmarks.latency import write_log
from benchmarks.profiles import ARRIVALS, PROFILES, Segment, schedule
from benchmarks.shoppers import from_shoppers
from contract.errors import UserError
from contract.figures import Figures

PROGRAM = "benchmarks.load"
KEY_VARIABLE = "TILLWISE_KEY"
MOST_ERRORS = 0.01
_WARM_UP = "warm-up"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Drive a gateway.")
    parser.add_argument("--url", required=True, help="where the gateway is")
    parser.add_argument("--rate", type=positive, required=True, help="requests per second")
    parser.add_argument("--seconds", type=positive, required=True, help="for how long")
    parser.add_argument("--profile", choices=PROFILES, default="steady")
    parser.add_argument(
        "--arrivals", choices=ARRIVALS, default="poisson", help="as shoppers come, or evenly spaced"
    )
    parser.add_argument(
        "--most-errors",
        type=float,
        default=MOST_ERRORS,
        metavar="SHARE",
        help="neither answered 2xx nor refused with 429; exit status 3 above it",
    )
    parser.add_argument("--warm-up", type=float, default=2.0, metavar="S", help="not counted")
    parser.add_argument("--connections", type=int, default=128, help="at most so many at once")
    parser.add_argument("--timeout", type=positive, default=10.0, metavar="S", help="per request")
    parser.add_argument("--key", help=f"a checkout key (default: ${KEY_VARIABLE})")
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "--data", type=Path, metavar="DIR", help="an import: send its late baskets"
    )
    sources.add_argument(
        "--shoppers",
        type=Path,
        metavar="DIR",
        help="a simulation or an import: send its sessions, behaviour and decisions",
    )
    parser.add_argument("--currency", default="USD", help="of carts made without --data")
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)
    parser.add_argument(
        "--hdr-log", type=Path, metavar="PATH", help="write an HDR histogram of each segment there"
    )
    return parser


def positive(text: str) -> float:
    """A number above zero, for argparse."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above zero")
    return number


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether they are void. Raises UserError, and Missed on too many errors."""
    key = args.key or os.environ.get(KEY_VARIABLE)
    requests = _requests(args, key)
    segments = PROFILES[args.profile](args.rate, args.seconds)
    target = Target.of(args.url, DECIDE, key)
    options = Options(max(1, min(args.connections, 900)), args.timeout)
    seen, waited = drive(
        target,
        requests,
        segments,
        arrivals=args.arrivals,
        warm_up=args.warm_up,
        seed=args.seed,
        options=options,
    )
    figures = Figures("load")
    for segment, samples in zip(segments, seen, strict=True):
        figures.add(segment.name, samples.metrics(), seconds=segment.seconds)
        for kind, part in sorted(samples.kinds.items()):
            figures.add(f"{segment.name}/{kind}", part.metrics(), seconds=segment.seconds)
    if args.hdr_log is not None:
        ends = list(accumulate(segment.seconds for segment in segments))
        begins = [0.0, *ends[:-1]]
        write_log(args.hdr_log, list(zip(begins, ends, (s.latencies for s in seen), strict=True)))
    sent = sum(one.statuses.total() for one in seen)
    if sent > len(requests):
        again = "by other visitors, in other sessions" if args.shoppers is not None else "unchanged"
        figures.notes.append(
            f"{len(requests)} different requests were sent {sent / len(requests):.1f} times each, "
            f"{again}, with the same carts: the gateway may remember their query vectors"
        )
    if waited:
        figures.notes.append(f"{waited} requests had to wait for a connection; their clock ran")
    void = add_notes(figures, segments, seen)
    judge(figures, seen, args.most_errors)
    return figures, void


def judge(figures: Figures, seen: Sequence[Samples], most_errors: float) -> None:
    """Raises Missed when more than the share `most_errors` of all that was sent ended in an error,
    or nothing was answered."""
    whole = reduce(Samples.merge, seen)
    total = whole.statuses.total()
    if total and not whole.succeeded:
        raise Missed(figures, f"none of {total} requests was answered: {describe_statuses(whole)}")
    if whole.errors > most_errors * total:
        raise Missed(
            figures,
            f"{whole.errors} of {total} requests ended in an error, more than {most_errors:.1%}: "
            f"{describe_statuses(whole)}",
        )


def _requests(args: argparse.Namespace, key: str | None) -> Sequence[bytes | Request]:
    """What is sent; the gateway has answered one of it. Raises UserError."""
    if args.shoppers is not None:
        requests = from_shoppers(args.shoppers, args.seed)
        check_items(args.url, key, [one.body for one in requests if one.kind == "decide"])
        return requests
    if args.data is None:
        return from_gateway(args.url, key, args.currency, args.seed)
    bodies = from_baskets(args.data, None, args.seed)
    probe(args.url, key, bodies[0])
    return bodies


def drive(
    target: Target,
    bodies: Sequence[bytes | Request],
    segments: Sequence[Segment],
    *,
    arrivals: str = "even",
    warm_up: float = 0.0,
    seed: int = 0,
    options: Options | None = None,
    generator: type[Generator] = Generator,
) -> tuple[list[Samples], int]:
    """The samples of every segment, without the warm-up, and how many requests had to wait for a
    connection. Raises UserError when nobody listens."""
    ahead = [Segment(_WARM_UP, segments[0].rate, warm_up)] if warm_up > 0 else []
    planned = schedule([*ahead, *segments], arrivals, seed)
    generate = options or Options()

    async def generated() -> tuple[list[Samples], int]:
        running = generator(target, bodies, planned, generate)
        return await running.run(), running.waited

    try:
        seen, waited = run_precisely(generated())
    except OSError as error:
        raise UserError(f"nobody answers at {target.host}:{target.port}: {error}") from None
    seen += [Samples() for _ in range(len(ahead) + len(segments) - len(seen))]
    for samples, segment in zip(seen, [*ahead, *segments], strict=True):
        for one in (samples, *samples.kinds.values()):
            one.seconds = segment.seconds
    return seen[len(ahead) :], waited


def add_notes(figures: Figures, segments: Sequence[Segment], seen: Sequence[Samples]) -> bool:
    """Say what went wrong; whether any row is void."""
    void = False
    for segment, samples in zip(segments, seen, strict=True):
        if samples.failed:
            figures.notes.append(f"{segment.name}: {describe_statuses(samples)}")
        if samples.void:
            void = True
            figures.notes.append(
                f"{segment.name}: VOID, the generator itself lagged: p99 "
                f"{samples.lag_p99_ms:.2f} ms, more than {LAG_LIMIT_MS:g} ms"
            )
    return void


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void or tell of too many errors."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
