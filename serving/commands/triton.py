"""`tillwise-serve triton`: a Triton server on this machine over the exported models, from the wheel
that `make triton` installs."""

import argparse
import signal
from types import FrameType

from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MODELS
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.commands.port import bind
from serving.inference.triton_process import Ports, TritonProcess, installed


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("triton", help="run a Triton server over the exported models")
    usual = Ports()
    for name in ("grpc", "http", "metrics"):
        port = getattr(usual, name)
        parser.add_argument(f"--{name}-port", type=int, default=port, help=f"(default {port})")
    parser.add_argument(
        "--variant", default="python", help="which configs/NAME.pbtxt it reads (default python)"
    )
    add_folders(parser, "models")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Serve until SIGTERM or SIGINT. Raises UserError."""
    models = settings_of(args).models
    installed()
    for name in MODELS:
        if not (models / name / "configs" / f"{args.variant}.pbtxt").is_file():
            raise UserError(
                f"{models / name}: no configs/{args.variant}.pbtxt; export a release first "
                "(`make demo DEMO_EXIT=1` makes one)"
            )
    ports = Ports(args.grpc_port, args.http_port, args.metrics_port)
    chosen = (ports.grpc, ports.http, ports.metrics)
    if not all(1 <= port <= 65_535 for port in chosen) or len(set(chosen)) < len(chosen):
        raise UserError("the three ports must differ and lie in 1..65535")
    for port in chosen:
        bind("127.0.0.1", port).close()
    process = TritonProcess(models, ports, variant=args.variant)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        process.start()
        print(
            f"Triton answers; start a gateway with TILLWISE_TRITON_URL=grpc://{process.address}",
            flush=True,
        )
        status = process.wait()
    except _Stopped:
        return Figures("triton")
    finally:
        process.end()
    raise UserError(f"Triton ended by itself, with status {status}")


class _Stopped(Exception):  # noqa: N818 - it names what happened
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    # Once: what ends the server must not be interrupted in turn.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise _Stopped
