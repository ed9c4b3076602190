"""What the command line of every benchmark does alike: its folders, one clear line for what is
wrong, exit status 2 for bad input and 3 for figures that may not be believed or miss what is
demanded of them, and `--json`."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import GateRefused, UserError
from contract.figures import Figures


class Missed(GateRefused):
    """What the figures say is not good enough; they are printed and written all the same."""

    def __init__(self, figures: Figures, message: str) -> None:
        super().__init__(message)
        self.figures = figures


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`: by default the demo's."""
    parser.add_argument(
        "--data", type=Path, default=Path("build/demo/data"), metavar="DIR", help="an import"
    )


def add_release(parser: argparse.ArgumentParser) -> None:
    """`--releases` and `--models`: where the live release lies."""
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")


def execute(program: str, run: Callable[[], tuple[Figures, bool]], target: Path | None) -> int:
    """Print and write the figures of `run`, which also says whether they are void."""
    missed: Missed | None = None
    try:
        with _ended_in_order():
            figures, void = run()
    except Missed as refusal:
        missed, figures, void = refusal, refusal.figures, False
    except UserError as error:
        return _fail(program, 2, str(error))
    except GateRefused as error:
        return _fail(program, 3, str(error))
    except KeyboardInterrupt:
        return _fail(program, 130, "interrupted")
    figures.machine = {**figures.machine, "cores": os.cpu_count()}
    print(figures.table())
    if target is not None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(figures.as_json(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            return _fail(program, 2, f"{target}: {error.strerror}")
    if missed is not None:
        return _fail(program, 3, str(missed))
    return 3 if void else 0


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM, as `timeout` sends it, interrupts: the servers that were started have sessions of
    their own and would go on for ever."""
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def _fail(program: str, status: int, message: str) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return status
