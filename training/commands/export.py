"""`export`: a fitted run becomes a release that serving loads."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from training.commands import EVALUATION, common_options, peak_mib
from training.commands.evaluate import PROTOCOLS

if TYPE_CHECKING:
    from training.commands import Subparsers
    from training.export.release import Quantised
    from training.run_folder import Run


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `export`."""
    parser = subparsers.add_parser(
        "export", parents=[common_options()], help="write a release with manifest and hashes"
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument(
        "--segments", type=Path, metavar="DIR", help="learned segments to put into the release"
    )
    parser.add_argument(
        "--choices", type=Path, metavar="DIR", help="learned choices to put into the release"
    )
    parser.add_argument(
        "--uplift", type=Path, metavar="DIR", help="an uplift network to put into the release"
    )
    parser.add_argument("--promote", action="store_true", help="make the release the live one")
    parser.add_argument(
        "--int8",
        nargs="*",
        metavar="MODEL",
        help="quantise these models, or those where it pays; judged on validation days of --data",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="what the run was fitted on")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Export `args.run_folder`. Raises GateRefused when torch and ONNX Runtime disagree, and when
    int8 costs too much quality."""
    from contract.rollout_file import promote
    from training.export import int8_gate, parity, release
    from training.run_folder import read_run

    began = time.perf_counter()
    fitted = read_run(args.run_folder)
    exported = release.export(
        fitted,
        args.models,
        args.releases,
        SystemClock(),
        _metrics(args.run_folder),
        quantised=_quantised(args, fitted),
        segments=args.segments,
        choices=args.choices,
        uplift=args.uplift,
    )
    manifest = exported.manifest
    if args.promote:
        promote(args.releases, manifest.release_id, SystemClock().now())
    figures = Figures("export")
    for entry in manifest.models:
        size = exported.bytes_by_model[entry.name] / 2**20
        figures.add(entry.name, {"parity": [entry.parity], "MiB": [size]})
        if entry.precision != "float32":
            figures.notes.append(f"{entry.name}: in {entry.precision}")
    if exported.int8 is not None:
        for name, row, became in int8_gate.rows(exported.int8):
            figures.add(name, row)
            figures.notes.append(f"{name}: {became}")
        figures.notes.append(
            f"int8: at most {int8_gate.LOSS_GATE:.0%} of NDCG@5 may be lost on the validation "
            "days, by known shoppers and by unknown ones; item vectors stay in floats"
        )
    for tried in exported.index.tried:
        recall = min(one.value for one in tried.recall)
        name = f"index/{tried.kind}"
        figures.add(name, {"lowest_recall": [recall], "p50_ms": [tried.median_ms]})
    entry_of_index = manifest.index
    asked = "".join(f", {name} {value}" for name, value in entry_of_index.parameters.items())
    figures.notes.append(f"index: {entry_of_index.kind} of {entry_of_index.count} items{asked}")
    figures.add("export", {}, seconds=time.perf_counter() - began, peak_mib=peak_mib())
    figures.notes.append(f"release {manifest.release_id} in {args.releases}")
    figures.notes.append(
        f"parity: largest difference between torch and ONNX Runtime over {parity.PARITY_INPUTS} "
        f"random inputs, at most {parity.TOLERANCE:.0e} allowed in float32"
    )
    return figures


def _quantised(args: argparse.Namespace, fitted: "Run") -> "Quantised | None":
    from contract.manifest import MODELS
    from training.data.source import read_source
    from training.export.release import Quantised

    if args.int8 is None:
        return None
    unknown = [name for name in args.int8 if name not in MODELS]
    if unknown:
        raise UserError(f"--int8: no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    if args.data is None:
        raise UserError("--int8 needs --data: the folder that the run was fitted on")
    days: dict[str, str | None] = {
        name: f"{day:%Y-%m-%d}" for name, day in asdict(fitted.window).items()
    }
    return Quantised(read_source(args.data, days), tuple(dict.fromkeys(args.int8)))


def _metrics(run_folder: Path) -> dict[str, float]:
    """The recommended model's figures from the evaluations that stand in the run's folder."""
    found: dict[str, float] = {}
    for protocol in PROTOCOLS:
        path = run_folder / EVALUATION.format(protocol=protocol)
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            row = next(row for row in rows if row["name"] == "tillwise")
            found |= {f"{protocol} {name}": m["mean"] for name, m in row["metrics"].items()}
    return found
