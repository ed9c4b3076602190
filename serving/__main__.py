"""`tillwise-serve`: wiring only. Every command is a module of `serving.commands`, and only that of
the command in hand is imported: most of them bring the whole gateway with them, models, compiled
loops and all."""

import argparse
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from contract.errors import GateRefused, UserError
from contract.figures import Figures
from serving.state.group_writer import StoreError

PROGRAM = "tillwise-serve"
COMMANDS = {
    "run": "serve decisions until stopped",
    "worker": "keep key figures and reports of experiments until stopped",
    "settings": "list every setting",
    "check": "verify the live release, file by file",
    "keys": "create, list, revoke or rotate keys",
    "release": "list, verify, promote, try out, roll back",
    "rules": "import, export or check the override rules",
    "backfill": "seed a fresh state folder from an import",
    "experiment": "size a test, or report what it has shown",
    "export": "write the event log as Parquet for training",
    "audit": "show the audit log, or prove that it is whole",
    "receipt": "verify a receipt of erasure",
    "retention": "remove what is older than its period (gateway stopped)",
    "backup": "copy everything that a gateway remembers, also while it runs",
    "restore": "put a backup back, without those who were erased since",
    "migrate": "encrypt the state folder of an earlier version (gateway stopped)",
    "demo": "replay a real checkout, then serve the demo page",
    "triton": "run a Triton server over the exported models",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {message} (see `{self.prog} --help`)\n")


def build_parser(asked: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser with every command, or for the arguments `asked` with the options of theirs."""
    chosen = COMMANDS if asked is None else [one for one in asked if one[:1] != "-"][:1]
    parser = _Parser(prog=PROGRAM, description="Serve checkout decisions.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, described in COMMANDS.items():
        if name in chosen:
            import_module(f"serving.commands.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=described)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 2 on bad input, 3 when a gate refuses."""
    asked = sys.argv[1:] if argv is None else argv
    args = build_parser(asked).parse_args(asked)
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
    except StoreError as error:
        return _fail(2, str(error))
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
