"""`python -m benchmarks.triton_faults`: what checkouts notice of a Triton server that is killed,
paused, loses the process behind a model, or answers wrongly, at a steady rate.

Each fault is a row per phase: while it lasts, while the server comes back, and from 5 s after its
return on, when every answer must be of the full rung again. The gateway is one process throughout.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.checkouts import DECIDE, from_baskets, from_gateway, probe, stranger
from benchmarks.command import add_json, add_release, execute
from benchmarks.http_client import Target
from benchmarks.load import drive, positive
from benchmarks.profiles import Segment
from benchmarks.servers import UNREMEMBERED, UNREMEMBERED_NOTE, created_key, free_port, server, stop
from benchmarks.triton import read_manifest
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import RANKER
from serving.inference.triton_process import Ports, TritonProcess

PROGRAM = "benchmarks.triton_faults"
TARGET_MS = 100.0
RETURN_SECONDS = 5.0
_FAULT_SECONDS = 6.0
_RESTART_SECONDS = 6.0  # the server's own start, which is not the gateway's
_AFTER_SECONDS = 4.0
_WARM_UP_SECONDS = 2.0
PHASES = ("before", "fault", "restart", "return", "recovered")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Break Triton.")
    parser.add_argument("--rate", type=positive, default=50.0, help="decisions per second")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--data", type=Path, metavar="DIR", help="an import: send its late baskets")
    parser.add_argument("--currency", default="USD", help="of carts made without --data")
    add_release(parser)
    add_json(parser)
    return parser


class Bench:
    """The server that is broken, and how."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.triton = TritonProcess(args.models, Ports.free(), log=folder / "triton.log")
        self._models = args.models.resolve()
        self._mode = folder / "mode"
        self._wrong: subprocess.Popen[bytes] | None = None

    def killed(self) -> None:
        """The server and what it started are gone."""
        self.triton.kill()

    def started(self) -> None:
        """It is there again."""
        if self._wrong is not None:
            stop(self._wrong)
            self._wrong = None
        self.triton.start()

    def paused(self) -> None:
        """It holds every connection and says nothing."""
        self.triton.signal(signal.SIGSTOP)

    def resumed(self) -> None:
        """It goes on."""
        self.triton.signal(signal.SIGCONT)

    def orphaned(self) -> None:
        """The process behind the ranker is gone, which the server does not notice."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes()
                if b"triton_python_backend_stub" in line and self._is_mine(path, line):
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def _is_mine(self, path: Path, line: bytes) -> bool:
        session = int((path.parent / "stat").read_text().rpartition(")")[2].split()[3])
        return session == self.triton.pid and f"/{RANKER}/".encode() in line

    def wrong(self) -> None:
        """Another server in its place answers with NaN."""
        self.triton.kill()
        self._mode.write_text("nan")
        port = str(self.triton.ports.grpc)
        module = "benchmarks.kserve_server"
        self._wrong = subprocess.Popen(
            [sys.executable, "-m", module, str(self._models), "python", port, str(self._mode)]
        )

    def end(self) -> None:
        """Leave nothing running."""
        if self._wrong is not None:
            stop(self._wrong)
        with contextlib.suppress(AssertionError, ProcessLookupError):
            self.resumed()
        self.triton.end()


# What breaks it, and what brings it back; a dead process behind a model is the gateway's to mend.
FAULTS: dict[str, tuple[Callable[[Bench], None], Callable[[Bench], None] | None]] = {
    "killed": (Bench.killed, Bench.started),
    "paused": (Bench.paused, Bench.resumed),
    "model process killed": (Bench.orphaned, None),
    "answers NaN": (Bench.wrong, Bench.started),
}


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether the generator lagged. Raises UserError."""
    manifest = read_manifest(args.releases)
    figures = Figures("triton_faults")
    with ExitStack() as started:
        state = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        bench = Bench(args, state)
        started.callback(bench.end)
        folder = f"--state={state / 'state'}"
        key = created_key(state / "state", "checkout")
        url = f"http://127.0.0.1:{free_port()}"
        began = time.perf_counter()
        until = manifest.trained_until.isoformat()
        started.enter_context(_gateway(args, url, folder, bench, until))
        probe(url, key, stranger((), args.currency, 0))
        figures.add("start to first answer, no Triton", {}, seconds=time.perf_counter() - began)
        bodies = from_gateway(url, key, args.currency, 0)
        if args.data is not None:
            bodies = from_baskets(args.data, manifest.trained_until, seed=0)
            probe(url, key, bodies[0])
        bench.triton.start()
        _taken_up(url)
        void = [
            _break(args, figures, bench, Target.of(url, DECIDE, key), bodies, name)
            for name in args.faults
        ]
    figures.notes.append(
        f"{args.rate:g} decisions/s with 100 ms each, on the same {os.cpu_count()} cores as the "
        f"generator and Triton; {UNREMEMBERED_NOTE}; load average {os.getloadavg()[0]:.1f}"
    )
    return figures, any(void)


def _taken_up(url: str) -> None:
    """Wait until the gateway uses the server. Raises UserError."""
    until = time.monotonic() + 2 * RETURN_SECONDS
    while httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).json().get("degraded"):
        if time.monotonic() > until:
            raise UserError("the gateway does not take up the Triton server")
        time.sleep(0.1)


@contextlib.contextmanager
def _gateway(
    args: argparse.Namespace, url: str, folder: str, bench: Bench, until: str
) -> Iterator[None]:
    """A gateway that is told of a server which is not there yet."""
    folders = [f"--{name}={getattr(args, name).resolve()}" for name in ("releases", "models")]
    port = url.rpartition(":")[2]
    told = UNREMEMBERED | {"TILLWISE_TRITON_URL": f"grpc://{bench.triton.address}"}
    arguments = ["run", f"--port={port}", folder, *folders, f"--as-of={until}"]
    with server("serving", arguments, f"{url}/readyz", told):
        yield


def _break(
    args: argparse.Namespace,
    figures: Figures,
    bench: Bench,
    target: Target,
    bodies: list[bytes],
    name: str,
) -> bool:
    """A row for each phase of the fault `name`; whether the generator lagged in one of them."""
    harm, mend = FAULTS[name]
    restart = _RESTART_SECONDS if mend is Bench.started else 0.1
    seconds = (2.0, _FAULT_SECONDS, restart, RETURN_SECONDS, _AFTER_SECONDS)
    if mend is None:
        seconds = (2.0, 0.1, 0.1, RETURN_SECONDS, _AFTER_SECONDS)
    segments = [Segment(*one) for one in zip(PHASES, (args.rate,) * 5, seconds, strict=True)]
    harmed = _WARM_UP_SECONDS + seconds[0]
    timers = [threading.Timer(harmed, harm, (bench,))]
    if mend is not None:
        timers.append(threading.Timer(harmed + seconds[1], mend, (bench,)))
    for timer in timers:
        timer.start()
    seen, _ = drive(target, bodies, segments, warm_up=_WARM_UP_SECONDS)
    for timer in timers:
        timer.join()
    unanswered = sum(samples.failed for samples in seen)
    worst = max(samples.metrics()["p99_ms"][0] for samples in seen)
    for segment, samples in zip(segments, seen, strict=True):
        if samples.statuses.total() and segment.seconds > 1:
            figures.add(f"{name}: {segment.name}", samples.metrics(), seconds=segment.seconds)
    back = seen[-1].metrics().get("rung_full", [0.0])[0]
    kept = unanswered == 0 and worst <= TARGET_MS and back == 1.0
    figures.notes.append(
        f"{name}: {unanswered} not answered 200, highest p99 of a phase {worst:.1f} ms, "
        f"full rung {back:.1%} from {RETURN_SECONDS:g} s after its return on: "
        f"{'reached' if kept else 'MISSED'}"
    )
    void = any(samples.void for samples in seen)
    if void:
        lag = max(samples.lag_p99_ms for samples in seen)
        figures.notes.append(f"{name}: VOID, the generator itself lagged: p99 up to {lag:.1f} ms")
    return void


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
