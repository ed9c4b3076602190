"""`python -m benchmarks.decide`: how long a decision takes over HTTP, at a steady rate.

It starts a gateway in embedded mode and, as the control, an endpoint that does nothing. Short
rounds of what is asked alternate, so that whatever else the machine does falls on all alike:
suggestions alone, and all that a checkout may ask for, with offers that are drawn, paced within a
day's budget and capped for each shopper, which are on record before they are answered.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from benchmarks.checkouts import DECIDE, from_baskets, probe, with_offers
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.generator import LAG_LIMIT_MS, Samples, describe_statuses
from benchmarks.http_client import Target
from benchmarks.load import drive, positive
from benchmarks.offer_books import DEAREST, books
from benchmarks.profiles import ARRIVALS, Segment
from benchmarks.servers import (
    UNREMEMBERED,
    UNREMEMBERED_NOTE,
    command,
    created_key,
    free_port,
    server,
)
from benchmarks.twin import live_manifest
from contract.consent import PURPOSES
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import ReleaseManifest

PROGRAM = "benchmarks.decide"
ROWS = ("bare", "decide/full", "decide/whole")
TARGET_MS = 25.0
WHOLE_TARGET = 1.2  # of the p99 of suggestions alone
_WARM_UP_SECONDS = 1.0
_LOOKED_AT = 100
_WHOLE = {
    "placements": ["recommendations", "offers", "payment", "shipping"],
    "payment_methods": ["card", "wallet", "invoice", "bank_transfer"],
    "shipping_options": [
        {"id": "standard", "price": 399, "days": 3},
        {"id": "express", "price": 999, "days": 1},
        {"id": "pickup", "price": 0, "days": 2},
    ],
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time decisions.")
    parser.add_argument("--rate", type=positive, default=50.0, help="decisions per second")
    parser.add_argument("--seconds", type=positive, default=60.0, help="of each row, all rounds")
    parser.add_argument("--rounds", type=int, default=6, help="alternations of the two rows")
    parser.add_argument("--arrivals", choices=ARRIVALS, default="even")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether too many rounds were void. Raises UserError."""
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    with ExitStack() as started:
        state = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        bare_port, port = free_port(), free_port()
        key = seeded(args, state, manifest)
        admin = created_key(state, "admin")
        folders = [f"--{name}={getattr(args, name).resolve()}" for name in ("releases", "models")]
        until = manifest.trained_until.isoformat()
        gateway = [f"--port={port}", f"--state={state}", *folders, f"--as-of={until}"]
        url = f"http://127.0.0.1:{port}"
        started.enter_context(server("serving", ["run", *gateway], f"{url}/readyz", UNREMEMBERED))
        bare = f"http://127.0.0.1:{bare_port}"
        started.enter_context(server("benchmarks.bare", [f"--port={bare_port}"], f"{bare}/"))
        with _administrator(url, admin) as client:
            _write_offers(client, json.loads(bodies[0])["cart"]["currency"])
            _agree_to_offers(client, args.data, bodies)
        asked = {
            "bare": bodies,
            "decide/full": [_with_consent(body) for body in bodies],
            "decide/whole": [_with_consent(body, **_WHOLE) for body in bodies],
        }
        probe(url, key, asked["decide/whole"][0])
        looked_at = asked["decide/whole"][:_LOOKED_AT]
        offered = with_offers(url, key, looked_at)
        gateway_target = Target.of(url, DECIDE, key)
        targets = dict.fromkeys(ROWS, gateway_target) | {"bare": Target.of(bare, DECIDE, key)}
        figures, void = _measure(args, targets, asked)
        figures.notes.append(f"{offered} of {len(looked_at)} of decide/whole are offered something")
        return figures, void


def seeded(args: argparse.Namespace, state: Path, manifest: ReleaseManifest) -> str:
    """Give the gateway the history of the import; its key."""
    until = manifest.trained_until.isoformat()
    folder = f"--state={state}"
    command("serving", "backfill", f"--data={args.data.resolve()}", f"--until={until}", folder)
    return created_key(state, "checkout")


def _administrator(url: str, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, timeout=30.0, trust_env=False, headers=headers)


def _write_offers(client: httpx.Client, currency: str) -> None:
    """Raises UserError."""
    book = books(currency)[DEAREST].model_dump(mode="json", exclude_none=True)
    _put(client, "/v1/offers", book)


def _agree_to_offers(client: httpx.Client, data: Path, bodies: Sequence[bytes]) -> None:
    """Who agrees to anything in these checkouts agreed to everything before. Raises UserError."""
    sent = [json.loads(body) for body in bodies]
    agreeing = {one["visitor_id"] for one in sent if one["consent"]["personalization"]}
    known = pq.read_table(data / "subjects.parquet", columns=["subject_id", "visitor_id"])
    word = {"purposes": dict.fromkeys(sorted(PURPOSES), True), "source": "import"}
    for subject_id, visitor_id in zip(*known.to_pydict().values(), strict=True):
        if visitor_id in agreeing:
            _put(client, f"/v1/consent/{subject_id}", word | {"wording_version": "1"})


def _put(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    try:
        answer = client.put(path, json=body)
    except httpx.HTTPError as error:
        raise UserError(f"the gateway does not answer: {error}") from None
    if answer.status_code != 200:
        raise UserError(f"PUT {path}: HTTP {answer.status_code}: {answer.text[:200]}")


def _with_consent(body: bytes, **more: object) -> bytes:
    """The same checkout, where offers are agreed to by whoever agrees to anything. In all rows: a
    consent that is taken back would have to be written."""
    asked = json.loads(body)
    asked["consent"]["offers"] = asked["consent"]["personalization"]
    return json.dumps(asked | more, separators=(",", ":")).encode()


def _measure(
    args: argparse.Namespace, targets: dict[str, Target], asked: dict[str, list[bytes]]
) -> tuple[Figures, bool]:
    """Alternate rounds. One whose generator lagged is done again, at most as often as planned."""
    kept: dict[str, list[Samples]] = {name: [] for name in ROWS}
    void: dict[str, list[Samples]] = {name: [] for name in ROWS}
    segments = [Segment("round", args.rate, args.seconds / args.rounds)]
    for turn in range(2 * args.rounds):
        for name in ROWS:
            if len(kept[name]) == args.rounds:
                continue
            bodies = asked[name]
            (samples,), _ = drive(
                targets[name],
                bodies[turn:] + bodies[:turn],
                segments,
                arrivals=args.arrivals,
                warm_up=_WARM_UP_SECONDS,
                seed=turn,
            )
            (void if samples.void else kept)[name].append(samples)
            done = "void" if samples.void else f"{len(kept[name])}/{args.rounds}"
            print(f"{name}: {done}", file=sys.stderr)
    return _figures(args, kept, void)


def _figures(
    args: argparse.Namespace, kept: dict[str, list[Samples]], void: dict[str, list[Samples]]
) -> tuple[Figures, bool]:
    load = os.getloadavg()[0]
    figures = Figures("decide", machine={"load_average": round(load, 2)})
    for name in ROWS:
        rounds = kept[name] or void[name]
        pooled = reduce(Samples.merge, rounds)
        figures.add(name, pooled.metrics(), seconds=pooled.seconds)
        figures.notes += _remarks(name, kept[name], void[name])
    figures.notes.append(
        f"{args.arrivals} arrivals at {args.rate:g}/s, {args.rounds} rounds of each in turn, "
        f"generator on the same {os.cpu_count()} cores; {UNREMEMBERED_NOTE}; load "
        f"average {load:.1f}"
    )
    if any(len(kept[name]) < args.rounds for name in ROWS):
        figures.notes.append("VOID: too few rounds in which the generator kept its schedule")
        return figures, True
    full, whole = (reduce(Samples.merge, kept[name]) for name in ROWS[1:])
    p99 = full.metrics()["p99_ms"][0]
    reached = p99 <= TARGET_MS and not full.failed
    times = whole.metrics()["p99_ms"][0] / p99
    within = times <= WHOLE_TARGET and not whole.failed
    figures.notes += [
        f"p99 <= {TARGET_MS:g} ms without an error: {'reached' if reached else 'MISSED'}",
        f"decide/whole, with offers, payment and shipping: {times:.2f} times the p99 of "
        f"decide/full (aimed at: {WHOLE_TARGET:g}): {'reached' if within else 'MISSED'}",
    ]
    return figures, False


def _remarks(name: str, kept: Sequence[Samples], void: Sequence[Samples]) -> list[str]:
    """Every round's p99, what failed, and what was left out."""
    remarks = []
    if kept:
        each = ", ".join(f"{samples.metrics()['p99_ms'][0]:.1f}" for samples in kept)
        remarks.append(f"{name}: p99 of each round in ms: {each}")
    if void:
        each = ", ".join(
            f"{samples.metrics()['p99_ms'][0]:.1f} (lag {samples.lag_p99_ms:.1f})"
            for samples in void
        )
        remarks.append(
            f"{name}: {len(void)} void rounds left out and repeated, in which the generator's own "
            f"lag p99 was over {LAG_LIMIT_MS:g} ms; their p99 in ms: {each}"
        )
    failed = reduce(Samples.merge, [*kept, *void], Samples())
    if failed.failed:
        remarks.append(f"{name}: {failed.failed} failed: {describe_statuses(failed)}")
    return remarks


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
