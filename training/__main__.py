"""`tillwise-train`: wiring only. Every command is a module of `training.commands`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from contract.errors import GateRefused, OutOfMemory, UserError
from contract.figures import Figures
from training.commands import (
    benchmark,
    choices,
    evaluate,
    evaluate_policy,
    export,
    fairness,
    fit,
    import_events,
    is_first_process,
    retrain,
    segments,
    simulate,
    uplift,
)

PROGRAM = "tillwise-train"
_FIRST_SPEAKS_S = 15.0  # then the first has not failed, and this process says why it has
COMMANDS = (
    *(import_events, simulate, fit, evaluate, benchmark),
    *(segments, choices, uplift, evaluate_policy, fairness, export, retrain),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command; importing none of the heavy libraries."""
    parser = _Parser(prog=PROGRAM, description="Import, simulate, train, evaluate and export.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 2 on bad input, 3 when a gate refuses."""
    args = build_parser().parse_args(argv)
    try:
        figures: Figures = args.run(args)
        if not is_first_process():
            return 0
        if args.json == Path("-"):
            print(json.dumps(figures.as_json(), indent=2))
        else:
            print(figures.table())
            if args.json is not None:
                _write_json(args.json, figures)
    except OutOfMemory as error:  # of many processes maybe only this one, so it must speak
        return _fail(2, str(error), everywhere=True)
    except UserError as error:
        return _fail(2, str(error))
    except GateRefused as error:
        return _fail(3, str(error))
    except OSError as error:  # a folder that cannot be written, a full disk
        return _fail(2, f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail(130, "interrupted") if is_first_process() else 130
    return 0


def _write_json(path: Path, figures: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures.as_json(), indent=2) + "\n", encoding="utf-8")


def _fail(status: int, message: str, *, everywhere: bool = False) -> int:
    if not (everywhere or is_first_process()):
        # torchrun ends all processes with the first that ends, which must be one that has spoken.
        time.sleep(_FIRST_SPEAKS_S)
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
