"""`tillwise-serve`: wiring only. Every command is a module of `serving.commands`."""

import argparse
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from contract.errors import GateRefused, UserError
from contract.figures import Figures
from serving.commands import backfill, check, demo, export, keys, release, run, triton

PROGRAM = "tillwise-serve"
COMMANDS = (run, check, keys, release, backfill, export, demo, triton)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = _Parser(prog=PROGRAM, description="Serve checkout decisions.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 2 on bad input, 3 when a gate refuses."""
    args = build_parser().parse_args(argv)
    try:
        if args.json == Path("-"):
            with redirect_stdout(sys.stderr):  # what is said to people
                figures: Figures = args.run(args)
            print(json.dumps(figures.as_json(), indent=2))
            return 0
        figures = args.run(args)
        if args.json is not None:
            _write_json(args.json, figures)
        return 0
    except UserError as error:
        return _fail(2, str(error))
    except GateRefused as error:
        return _fail(3, str(error))
    except sqlite3.Error as error:
        return _fail(2, f"the state folder's files can not be used: {error}")
    except OSError as error:  # a folder that cannot be written, a full disk
        return _fail(2, f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail(130, "interrupted")


def _write_json(path: Path, figures: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures.as_json(), indent=2) + "\n", encoding="utf-8")


def _fail(status: int, message: str) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
