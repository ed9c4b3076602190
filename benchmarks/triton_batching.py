"""Servers that batch in different ways over the same models, and what each of them answers. One of
them computes nothing: what it takes is what gRPC and the way to the model's process take, which no
batch saves but by being one."""

import argparse
import asyncio
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.triton_questions import Questions
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MODELS, ReleaseManifest
from serving.inference.triton_client import TritonClient
from serving.inference.triton_process import TritonProcess
from training.export import model_config

TARGET = 2.0
LIMITS_MS = (25.0, 50.0, 100.0)  # p99 at which rates are compared
WITHOUT, NOTHING = "without batching", "nothing computed"
_NOTHING_COMPUTED = Path(__file__).with_name("nothing_computed.py")
_WARM_UP = 100

Found = dict[tuple[str, int], list[dict[str, float]]]  # by server and number of callers


def ways(args: argparse.Namespace) -> dict[str, int | None]:
    """The servers to start and the queue delay of each, None where there is no batching."""
    found = {WITHOUT: None, **{f"delay {us} us": us for us in args.delays}}
    # What is served without our `model.py` can not be told to compute nothing.
    served_by_us = model_config.VARIANTS[args.variant].backend == "python"
    return found | {NOTHING: 0} if served_by_us else found


def repository(
    root: Path, args: argparse.Namespace, manifest: ReleaseManifest, name: str, delay: int | None
) -> Path:
    """The release's models for the server `name`, as links to the same files."""
    for entry in manifest.models:
        folder = root / entry.name
        version = folder / str(entry.version)
        version.mkdir(parents=True)
        source = (args.models / entry.name / str(entry.version)).resolve()
        if not source.is_dir():
            raise UserError(f"{source}: missing; export the release again")
        for path in source.iterdir():
            (version / path.name).symlink_to(path)
        (version / "model.py").unlink(missing_ok=True)
        if name == NOTHING:
            shutil.copyfile(_NOTHING_COMPUTED, version / "model.py")
            shutil.copyfile(model_config.PYTHON_BACKEND, version / "served.py")
        else:
            shutil.copyfile(model_config.PYTHON_BACKEND, version / "model.py")
        config = model_config.render(
            entry.name,
            args.variant,
            queue_delay_us=delay or 0,
            dynamic_batching=delay is not None,
        )
        (folder / "configs").mkdir()
        (folder / "configs" / "measured.pbtxt").write_text(config)
    return root


def measure(
    args: argparse.Namespace,
    figures: Figures,
    questions: Questions,
    servers: Mapping[str, TritonProcess],
) -> None:
    """A row for each server and number of callers, and what follows from them: for the models in
    turn and, where that is asked for, for each apart."""
    asked = {"": list(args.models_asked)}
    if args.apart:
        asked |= {f"{model}: ": [model] for model in MODELS}
    found: dict[str, Found] = {label: {} for label in asked}
    for turn in range(args.rounds):
        for label, models in asked.items():
            for callers in args.callers:
                for name, process in servers.items():
                    once = asyncio.run(_once(questions, process, models, callers, args.seconds))
                    found[label].setdefault((name, callers), []).append(once)
        print(f"round {turn + 1}/{args.rounds}", file=sys.stderr)
    for label, seen in found.items():
        for (name, callers), rounds in sorted(seen.items(), key=lambda item: item[0][1]):
            metrics = {metric: [one[metric] for one in rounds] for metric in rounds[0]}
            figures.add(f"{label}{name}, {callers} callers", metrics)
    for label, seen in found.items():
        figures.notes += [f"{label}{line}" for line in conclusions(seen)]


async def _once(
    questions: Questions,
    process: TritonProcess,
    models: Sequence[str],
    callers: int,
    seconds: float,
) -> dict[str, float]:
    client = TritonClient(process.address)
    await questions.ask(client, models, callers, _WARM_UP, 5.0)
    busy = process.cpu_seconds()
    seen, took = await questions.ask(client, models, callers, sys.maxsize, seconds)
    busy = process.cpu_seconds() - busy
    await client.close()
    p50, p99 = (float(np.percentile(seen, percent)) * 1_000 for percent in (50, 99))
    return {
        "per_second": len(seen) / took,
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": max(seen) * 1_000,
        "cpu_ms": busy / len(seen) * 1_000,  # of the server and its models, per request
    }


def conclusions(found: Found) -> list[str]:
    """At equal p99: the highest rate of each server within each of `LIMITS_MS`, against the one
    without batching; and what a core of the server answers, whatever the callers take."""

    def middle(key: tuple[str, int], metric: str) -> float:
        return median(one[metric] for one in found[key])

    def best(name: str, limit: float) -> tuple[str, int] | None:
        within = [key for key in found if key[0] == name and middle(key, "p99_ms") <= limit]
        return max(within, key=lambda key: middle(key, "per_second"), default=None)

    lines: list[str] = []
    others = [name for name in dict.fromkeys(name for name, _ in found) if name != WITHOUT]
    for limit in LIMITS_MS:
        plain = best(WITHOUT, limit)
        if plain is None:
            lines.append(f"p99 within {limit:g} ms: never {WITHOUT}")
            continue
        rate = middle(plain, "per_second")
        lines.append(f"p99 within {limit:g} ms: {rate:.0f}/s {WITHOUT} ({plain[1]} callers)")
        for name in others:
            top = best(name, limit)
            if top is None:
                lines.append(f"p99 within {limit:g} ms: never {name}")
                continue
            gain = middle(top, "per_second") / rate
            verdict = "reached" if gain >= TARGET else f"MISSED (target {TARGET:g})"
            lines.append(
                f"p99 within {limit:g} ms: {middle(top, 'per_second'):.0f}/s, {name} "
                f"({top[1]} callers): {gain:.2f} times{'' if name == NOTHING else ', ' + verdict}"
            )
    callers = max(number for _, number in found)
    cpu = middle((WITHOUT, callers), "cpu_ms")
    lines += [
        f"{callers} callers, {name}: a core of the server answers "
        f"{cpu / middle((name, callers), 'cpu_ms'):.2f} times as many"
        for name in others
    ]
    return lines
