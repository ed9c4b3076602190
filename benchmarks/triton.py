"""`python -m benchmarks.triton`: what dynamic batching brings on a real Triton server, and how long
a batch should wait for company.

It starts a server per way of batching over the exported models, rounds of all of them in turn, and
asks each for one decision's models after another, by a fixed number of callers; one more server is
the same but that it computes nothing. Then it asks one server for so many requests that a rare
stall would show, and compares its answers with the files'.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.command import add_json, add_release, execute
from benchmarks.triton_batching import measure, repository, ways
from benchmarks.triton_questions import Questions, requests
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MANIFEST, MODELS, ModelEntry, ReleaseManifest
from serving.inference.triton_client import TritonClient
from serving.inference.triton_process import TritonProcess, running
from training.export import model_config

PROGRAM = "benchmarks.triton"
STALL_MS = 100.0
_WARM_UP = 100
_PARITY = 1_000


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time Triton.")
    parser.add_argument(
        "--delays", type=int, nargs="*", default=[0, 500, 1_000, 2_000, 5_000], metavar="US"
    )
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 4, 16, 32, 64], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="of every server, in turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument(
        "--stalls", type=int, default=100_000, help="requests to look for stalls (0: none)"
    )
    parser.add_argument("--models-asked", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--apart", action="store_true", help="each model by itself as well")
    parser.add_argument(
        "--variant",
        default="python",
        choices=model_config.VARIANTS,
        help="configuration to start from",
    )
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; never void. Raises UserError."""
    if args.rounds < 1 or not args.models_asked or not args.callers:
        raise UserError("at least one round, one model and one number of callers are needed")
    manifest = read_manifest(args.releases)
    questions = Questions(manifest, manifest.index.count)
    figures = Figures("triton")
    with ExitStack() as started:
        root = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        servers = {}
        for number, (name, delay) in enumerate(ways(args).items()):
            models = repository(root / str(number), args, manifest, name, delay)
            servers[name] = started.enter_context(running(models, variant="measured"))
        measure(args, figures, questions, servers)
        usual = servers.get(f"delay {model_config.QUEUE_DELAY_US} us")
        if usual is not None:
            if args.stalls > 0:
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
        asked = requests(entry, manifest.index.count, _PARITY)
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
