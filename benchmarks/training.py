"""`python -m benchmarks.training`: examples per second of every training, and how much of the
device they use.

A step is the trainer's own: batch, loss, backward, clipping, optimizer, in the precision that the
device trains in. Its floating-point operations are counted by torch (matrix products and attention,
forward and backward; look-ups and element-wise work count as none), so a small share of the peak
says that the time goes into those. The peak is measured in the same run by large matrix products in
the same precision; where the maker's figure is known, the share of it stands beside.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import add_json, execute
from benchmarks.load import positive
from benchmarks.training_cases import CASES, Case, Setting
from contract.errors import UserError
from contract.figures import Figures
from training.acceleration import out_of_memory, plain_again
from training.commands import peak_mib
from training.distributed import device_named
from training.recipes import recipe
from training.trainer import Run, Schedule

PROGRAM = "benchmarks.training"
_LOWER = "`--set batch_size=`, `--set negatives=` or `--items`"
# Dense bfloat16 tensor-core TFLOP/s by the maker's data sheets ("NVIDIA H100", "H200" and "A100
# Tensor Core GPU"; half of what they give with sparsity), by a part of the device's name.
DATASHEET_TFLOPS = (
    ("H200", 989.5),
    ("H100 PCIe", 756.5),
    ("H100", 989.5),
    ("A100", 312.0),
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time training.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--recipe", default="demo", metavar="NAME")
    parser.add_argument("--set", action="append", metavar="key=value", help="change a setting")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--items", type=int, default=26_000, metavar="N", help="catalogue size")
    parser.add_argument("--seconds", type=positive, default=10.0, help="timed, of each case")
    parser.add_argument("--rounds", type=int, default=3, help="in which the seconds are spent")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; they are never void. Raises UserError."""
    if args.rounds < 1 or args.items < 100:
        raise UserError("--rounds must be at least 1 and --items at least 100")
    device = device_named(args.device)
    setting = Setting(recipe(args.recipe, args.set), device, args.items)
    compiled = args.compile == "on" or (args.compile == "auto" and device.type == "cuda")
    name, dtype = describe(device)
    measured, stated = matmul_tflops(device, dtype), datasheet_tflops(name)
    figures = Figures(
        "training",
        machine={
            "device": name,
            "dtype": str(dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "compiled": compiled,
        },
    )
    figures.add("peak/matmul", {"TFLOP/s": [measured]})
    if stated is not None:
        figures.add("peak/datasheet", {"TFLOP/s": [stated]})
    for case in args.cases:
        with out_of_memory(case, _LOWER, device):
            timed = time_case(CASES[case](setting), args, device, compiled)
        shares = {"share of matmul peak": [rate / measured for rate in timed["TFLOP/s"]]}
        if stated is not None:
            shares["share of datasheet peak"] = [rate / stated for rate in timed["TFLOP/s"]]
        figures.add(case, {**timed, **shares}, seconds=args.seconds, peak_mib=peak_memory(device))
    figures.notes += [
        f"towers and ranker of recipe {setting.recipe.name}, {args.items} made-up items; "
        "per_second is examples, of sequences and sessions the places that are learned from",
        "FLOPs: matrix products and attention, forward and backward; the rest counts as none",
        "peak MiB: of the device" if device.type == "cuda" else "peak MiB: of the process so far",
    ]
    return figures, False


def describe(device: torch.device) -> tuple[str, torch.dtype]:
    """The device's name and what it multiplies in while it trains."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device), torch.bfloat16
    return "cpu", torch.float32


def datasheet_tflops(name: str) -> float | None:
    """The maker's dense bfloat16 figure, where it is known."""
    return next((tflops for part, tflops in DATASHEET_TFLOPS if part in name), None)


def matmul_tflops(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """The best of some rounds of one large square matrix product."""
    size = 8_192 if device.type == "cuda" else 2_048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 1):  # the first one warms up; it is never the best
        began = _now(device)
        left @ right
        best = min(best, _now(device) - began)
    return 2 * size**3 / best / 1e12


def time_case(
    case: Case, args: argparse.Namespace, device: torch.device, compiled: bool
) -> dict[str, list[float]]:
    """Examples and TFLOP per second, a value a round."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    schedule = Schedule(epochs=1, learning_rate=1e-4, weight_decay=0.0, patience=1)
    running = Run(case.task, schedule, 0, "benchmark", device)
    running.model.train()
    batches = _endless(running)
    drawn = case.task.num_batches  # they may differ in length
    with FlopCounterMode(display=False) as counter:  # not through a compiler, which hides products
        for _ in range(drawn):
            running.step(next(batches))
    flops = counter.get_total_flops() / drawn
    parts = running.compile() if compiled else []
    for _ in range(3):
        running.step(next(batches))
    rates = []
    for _ in range(args.rounds):
        steps, began = 0, _now(device)
        while (elapsed := _now(device) - began) < args.seconds / args.rounds:
            running.step(next(batches))
            steps += 1
        rates.append(steps / elapsed)
    plain_again(parts)
    return {
        "per_second": [rate * case.batch_size for rate in rates],
        "TFLOP/s": [rate * flops / 1e12 for rate in rates],
    }


def _endless(running: Run) -> Iterator[Any]:
    """Full batches, epoch after epoch, as the trainer draws them."""
    return itertools.chain.from_iterable(
        running.task.batches(running.generator) for _ in itertools.count()
    )


def _now(device: torch.device) -> float:
    """Seconds, with everything done that was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> float:
    """MiB: on CUDA the most that the last case held, else the most of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_mib()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
