"""`python -m benchmarks.triton`: what dynamic batching brings on a real Triton server, and how long
a batch should wait for company.

It starts a server per way of batching over the exported models, rounds of all of them in turn, and
asks each for one decision's models after another, by a fixed number of callers. Then it asks one
server for so many requests that a rare stall would show, and compares its answers with the files'.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.command import add_json, add_release, execute
from contract.encoding import Encoded
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MANIFEST, MODELS, ModelEntry, ReleaseManifest
from serving.inference.triton_client import TritonClient
from serving.inference.triton_process import TritonProcess, running
from training.export import model_config
from training.export.parity import random_inputs

PROGRAM = "benchmarks.triton"
TARGET = 2.0
STALL_MS = 100.0
WITHOUT = "without batching"
_POOL = 256  # different requests per model
_WARM_UP = 100
_PARITY = 1_000


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time Triton.")
    parser.add_argument("--delays", type=int, nargs="*", default=[0, 100, 500, 1_000], metavar="US")
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 4, 16, 32], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="of every server, in turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--stalls", type=int, default=100_000, help="requests to look for stalls")
    parser.add_argument("--models-asked", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--variant", default="python", help="configuration to start from")
    add_release(parser)
    add_json(parser)
    return parser


class Questions:
    """Random valid requests for every model, and who asks them."""

    def __init__(self, manifest: ReleaseManifest, num_items: int) -> None:
        self.entries = {name: manifest.model(name) for name in MODELS}
        self._pool = {
            name: _requests(entry, num_items, _POOL) for name, entry in self.entries.items()
        }

    async def ask(
        self, client: TritonClient, names: Sequence[str], callers: int, count: int, seconds: float
    ) -> tuple[list[float], float]:
        """Latencies in seconds until `count` requests or `seconds` are over, and how long it took.
        Every caller asks again when it has its answer, the models in turn."""
        latencies: list[float] = []
        began = time.perf_counter()

        async def caller(number: int) -> None:
            turn = number
            while len(latencies) < count and time.perf_counter() - began < seconds:
                name = names[turn % len(names)]
                asked = time.perf_counter()
                await client.infer(self.entries[name], self._pool[name][turn % _POOL], 10.0)
                latencies.append(time.perf_counter() - asked)
                turn += 1

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return latencies, time.perf_counter() - began


def _requests(entry: ModelEntry, num_items: int, count: int) -> list[Encoded]:
    made: Any = random_inputs(entry.name, count, num_items, np.random.default_rng(0))
    return [{name: array[n : n + 1] for name, array in made.items()} for n in range(count)]


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; never void. Raises UserError."""
    if args.rounds < 1 or not args.models_asked or not args.callers:
        raise UserError("at least one round, one model and one number of callers are needed")
    manifest = read_manifest(args.releases)
    questions = Questions(manifest, manifest.index.count)
    figures = Figures("triton")
    with ExitStack() as started:
        root = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        ways: dict[str, int | None] = {
            WITHOUT: None,
            **{f"delay {us} us": us for us in args.delays},
        }
        servers = {
            name: started.enter_context(
                running(_repository(root / str(number), args, manifest, delay), variant="measured")
            )
            for number, (name, delay) in enumerate(ways.items())
        }
        _measure(args, figures, questions, servers)
        usual = servers.get(f"delay {model_config.QUEUE_DELAY_US} us")
        if usual is not None:
            _stalls(args, figures, questions, usual)
            _parity(args, figures, manifest, usual)
    figures.notes.append(
        f"load average {os.getloadavg()[0]:.1f}; server and callers share {os.cpu_count()} cores; "
        f"variant {args.variant}; models asked in turn: {', '.join(args.models_asked)}"
    )
    return figures, False


def read_manifest(releases: Path) -> ReleaseManifest:
    """Of the live release. Raises UserError."""
    try:
        release_id = (releases / "current").read_text(encoding="utf-8").strip()
        return ReleaseManifest.model_validate_json((releases / release_id / MANIFEST).read_bytes())
    except (OSError, ValueError):
        raise UserError(
            f"{releases} holds no release that can be read; make one with `make demo DEMO_EXIT=1`"
        ) from None


def _repository(
    root: Path, args: argparse.Namespace, manifest: ReleaseManifest, delay: int | None
) -> Path:
    """The release's models with another batching, as links to the same files."""
    for entry in manifest.models:
        folder = root / entry.name
        version = folder / str(entry.version)
        version.mkdir(parents=True)
        source = (args.models / entry.name / str(entry.version)).resolve()
        if not source.is_dir():
            raise UserError(f"{source}: missing; export the release again")
        for path in source.iterdir():
            (version / path.name).symlink_to(path)
        shutil.copyfile(model_config.PYTHON_BACKEND, folder / ".model.py")
        (version / "model.py").unlink(missing_ok=True)
        shutil.move(folder / ".model.py", version / "model.py")
        config = model_config.render(
            entry.name,
            args.variant,
            queue_delay_us=delay or 0,
            dynamic_batching=delay is not None,
        )
        (folder / "configs").mkdir()
        (folder / "configs" / "measured.pbtxt").write_text(config)
    return root


def _measure(
    args: argparse.Namespace,
    figures: Figures,
    questions: Questions,
    servers: dict[str, TritonProcess],
) -> None:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}

    async def once(process: TritonProcess, callers: int) -> dict[str, float]:
        client = TritonClient(process.address)
        await questions.ask(client, args.models_asked, callers, _WARM_UP, 5.0)
        busy = process.cpu_seconds()
        seen, seconds = await questions.ask(
            client, args.models_asked, callers, sys.maxsize, args.seconds
        )
        busy = process.cpu_seconds() - busy
        await client.close()
        p50, p99 = (float(np.percentile(seen, percent)) * 1_000 for percent in (50, 99))
        rate = len(seen) / seconds
        return {
            "per_second": rate,
            "p50_ms": p50,
            "p99_ms": p99,
            "max_ms": max(seen) * 1_000,
            "cpu_ms": busy / len(seen) * 1_000,  # of the server, per request
        }

    for turn in range(args.rounds):
        for callers in args.callers:
            for name, process in servers.items():
                found.setdefault((name, callers), []).append(asyncio.run(once(process, callers)))
        print(f"round {turn + 1}/{args.rounds}", file=sys.stderr)
    for (name, callers), rounds in sorted(found.items(), key=lambda item: item[0][1]):
        metrics = {metric: [one[metric] for one in rounds] for metric in rounds[0]}
        figures.add(f"{name}, {callers} callers", metrics)
    _conclude(figures, found)


def _conclude(figures: Figures, found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    """The highest rate at a p99 that does not exceed the one without batching at its own best."""

    def middle(key: tuple[str, int], metric: str) -> float:
        return median(one[metric] for one in found[key])

    plain = [key for key in found if key[0] == WITHOUT]
    best = max(plain, key=lambda key: middle(key, "per_second"))
    rate, p99 = middle(best, "per_second"), middle(best, "p99_ms")
    figures.notes.append(
        f"{WITHOUT}: at most {rate:.0f}/s, with {best[1]} callers at p99 {p99:.1f} ms (medians)"
    )
    for name in dict.fromkeys(key[0] for key in found if key[0] != WITHOUT):
        within = [k for k in found if k[0] == name and middle(k, "p99_ms") <= p99]
        if not within:
            figures.notes.append(f"{name}: no number of callers at a p99 of at most {p99:.1f} ms")
            continue
        top = max(within, key=lambda key: middle(key, "per_second"))
        gain = middle(top, "per_second") / rate
        saved = middle(best, "cpu_ms") / middle((name, best[1]), "cpu_ms")
        figures.notes.append(
            f"{name}: {middle(top, 'per_second'):.0f}/s with {top[1]} callers at p99 "
            f"{middle(top, 'p99_ms'):.1f} ms: {gain:.2f} times as much, "
            f"{'reached' if gain >= TARGET else 'MISSED'} (target {TARGET:g} times at equal p99); "
            f"with {best[1]} callers a core of the server answers {saved:.2f} times as many"
        )


def _stalls(
    args: argparse.Namespace, figures: Figures, questions: Questions, process: TritonProcess
) -> None:
    async def look() -> tuple[list[float], float]:
        client = TritonClient(process.address)
        await questions.ask(client, args.models_asked, 8, _WARM_UP, 5.0)
        seen = await questions.ask(client, args.models_asked, 8, args.stalls, 600.0)
        await client.close()
        return seen

    seen, seconds = asyncio.run(look())
    stalls = sum(one * 1_000 > STALL_MS for one in seen)
    figures.add(
        "stalls",
        {
            "requests": [float(len(seen))],
            "over_100_ms": [float(stalls)],
            "per_second": [len(seen) / seconds],
            "p99_ms": [float(np.percentile(seen, 99)) * 1_000],
            "max_ms": [max(seen) * 1_000],
        },
        seconds=seconds,
    )


def _parity(
    args: argparse.Namespace, figures: Figures, manifest: ReleaseManifest, process: TritonProcess
) -> None:
    """The largest difference between the server and ONNX Runtime here, one by one and together."""

    async def compare(entry: ModelEntry) -> float:
        path = args.models / entry.name / str(entry.version) / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        asked = _requests(entry, manifest.index.count, _PARITY)
        client = TritonClient(process.address)
        worst = 0.0
        for together in (1, 32):
            for start in range(0, _PARITY, together):
                part = asked[start : start + together]
                answers = await asyncio.gather(*(client.infer(entry, one, 10.0) for one in part))
                for one, answer in zip(part, answers, strict=True):
                    (expected,) = session.run(None, one)
                    got: Any = answer[entry.outputs[0].name]
                    worst = max(worst, float(np.abs(got - np.asarray(expected)).max()))
        await client.close()
        return worst

    for name in MODELS:
        worst = asyncio.run(compare(manifest.model(name)))
        figures.add(f"parity of {name}", {"parity": [worst], "requests": [2.0 * _PARITY]})


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
