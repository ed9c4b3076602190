"""`python -m benchmarks.boot`: from the start of the process to the first valid decision, with
every other service down: from the live release and, where `current` names a broken one, from the
last good one on disk. A state folder with the history of an import is there, as after a restart.
The last row starts without the machine code that images carry: every loop is compiled first.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.checkouts import DECIDE, from_baskets
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.servers import command, created_key, free_port, stop
from benchmarks.twin import copy_with_twin, live_manifest
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import INDEX
from contract.rollout_file import promote, record_healthy

PROGRAM = "benchmarks.boot"
MOST_SECONDS = 10.0
ROWS = ("live release", "last good release", "live release, nothing compiled")
_PATIENCE_SECONDS = 120.0
_RUNGS = ("full", "no_ranker", "session_knn", "popular")


@dataclass(frozen=True)
class Answered:
    """The first valid decision: when, by which release and rung, and what readiness says."""

    seconds: float
    cpu_seconds: float  # which do not depend on what else the machine does
    release_id: str
    rung: str
    problems: list[str]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time cold starts.")
    parser.add_argument("--runs", type=int, default=3, help="of each row, in turn")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; they are never void. Raises UserError."""
    if args.runs < 1:
        raise UserError("--runs must be at least 1")
    manifest = live_manifest(args.releases)
    until = manifest.trained_until.isoformat()
    body = from_baskets(args.data, manifest.trained_until, seed=0)[0]
    found: dict[str, list[Answered]] = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder:
        root = Path(folder)
        good, twin = copy_with_twin(args.releases, args.models, root)
        folders = [f"--{name}={root / name}" for name in ("releases", "models", "state")]
        state = folders[-1]
        command("serving", "backfill", f"--data={args.data.resolve()}", f"--until={until}", state)
        key = created_key(root / "state", "checkout")
        record_healthy(root / "releases", good)
        with (root / "releases" / twin / INDEX).open("r+b") as file:  # half a copy
            file.truncate(file.seek(0, os.SEEK_END) // 2)
        for _ in range(args.runs):
            for name, live in zip(ROWS, (good, twin, good), strict=True):
                promote(root / "releases", live, datetime.now(UTC))
                with _compiled(name == ROWS[2]) as settings:
                    answered = _boot([*folders, f"--as-of={until}"], settings, key, body)
                if answered.release_id != good:
                    raise UserError(f"{name}: release {answered.release_id} answered, not {good}")
                found[name].append(answered)
    return _figures(found), False


@contextlib.contextmanager
def _compiled(anew: bool) -> Iterator[dict[str, str]]:
    """Settings under which what was compiled before is at hand, or nothing of it."""
    with tempfile.TemporaryDirectory(prefix="tillwise-") as empty:
        yield {"NUMBA_CACHE_DIR": empty} if anew else {}


def _boot(arguments: Sequence[str], settings: Mapping[str, str], key: str, body: bytes) -> Answered:
    """Start a gateway, ask until it decides, end it."""
    port = free_port()
    began = time.monotonic()
    with _process(["run", f"--port={port}", *arguments], settings) as process:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() - began < _PATIENCE_SECONDS and process.poll() is None:
                with contextlib.suppress(httpx.HTTPError):
                    answer = client.post(url + DECIDE, content=body, headers=headers)
                    said = answer.json() if answer.status_code == 200 else {}
                    if said.get("rung") in _RUNGS and said["recommendations"]:
                        seconds, spent = time.monotonic() - began, _cpu_seconds(process.pid)
                        ready = client.get(f"{url}/readyz").json()
                        problems = ready.get("problems", [])
                        return Answered(seconds, spent, said["release_id"], said["rung"], problems)
                time.sleep(0.02)
    raise UserError("the gateway did not come to a decision")


@contextlib.contextmanager
def _process(
    arguments: Sequence[str], settings: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: held for name, held in os.environ.items() if not name.startswith("TILLWISE_")}
    # Nobody listens there: whatever may be elsewhere is down.
    down = {"TILLWISE_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}/v1/traces"}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parent.parent,
        env=kept | down | dict(settings),
    )
    try:
        yield process
    finally:
        stop(process)


def _cpu_seconds(pid: int) -> float:
    """What the process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def _figures(found: dict[str, list[Answered]]) -> Figures:
    figures = Figures("boot", machine={"load_average": round(os.getloadavg()[0], 2)})
    for name, answers in found.items():
        metrics = {
            "seconds_to_answer": [one.seconds for one in answers],
            "cpu_seconds": [one.cpu_seconds for one in answers],
        }
        figures.add(name, metrics)
        rungs = sorted({one.rung for one in answers})
        figures.notes.append(f"{name}: first answers on rung {', '.join(rungs)}")
        told = {problem for one in answers for problem in one.problems}
        figures.notes += [f"{name}: readiness says: {json.dumps(one)}" for one in sorted(told)]
    for name, answers in found.items():
        slowest = max(one.seconds for one in answers)
        held = "reached" if slowest <= MOST_SECONDS else "MISSED"
        figures.notes.append(f"{name}: at most {MOST_SECONDS:g} s: {held}, slowest {slowest:.1f} s")
    figures.notes.append(f"load average {os.getloadavg()[0]:.1f}")
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
