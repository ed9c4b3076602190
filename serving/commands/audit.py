"""`tillwise-serve audit verify | show`: who changed what, and the proof that the log is whole."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from contract.errors import GateRefused, UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.state.audit import Line, first_fault, parsed_line
from serving.state.sql_control_store import SqlControlStore


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("audit", help="show the audit log, or prove that it is whole")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="find any changed, missing or reordered line")
    verify.add_argument(
        "--lines", type=Path, metavar="FILE", help="verify what `audit show` printed instead"
    )
    verify.add_argument(
        "--at-least",
        metavar="NUMBER:MAC",
        help="a line that was seen before, for instance in a receipt: it must still be there; "
        "finds a whole state folder that was put back to an earlier day",
    )
    verify.set_defaults(run=_verify)
    show = actions.add_parser("show", help="print all lines as JSON, one a line")
    show.set_defaults(run=_show)
    for parser in (verify, show):
        add_folders(parser, "state")
        add_json(parser)


def _open(args: argparse.Namespace) -> SqlControlStore:
    settings = settings_of(args)
    require_control(settings, "audit log")
    return open_control(settings, secrets_of(settings))


def _verify(args: argparse.Namespace) -> Figures:
    """Status 3 names the first line that is wrong."""
    control = _open(args)
    try:
        lines, head = control.audit_log()
        key = control.service_key("audit")
    finally:
        control.close()
    if args.lines is not None:
        lines = list(printed_lines(args.lines))
    fault = first_fault(lines, head, key)
    if fault is None and args.at_least is not None:
        fault = _missing(args.at_least, lines)
    if fault is not None:
        raise GateRefused(f"audit log: {fault}")
    last = f"; the last is {lines[-1].number}:{lines[-1].mac}" if lines else ""
    print(f"{len(lines)} lines, all as they were written{last}")
    figures = Figures("audit verify")
    figures.add("verified", {"lines": [float(len(lines))]})
    return figures


def _show(args: argparse.Namespace) -> Figures:
    control = _open(args)
    try:
        lines, _ = control.audit_log()
    finally:
        control.close()
    for line in lines:
        print(line.as_json())
    figures = Figures("audit show")
    figures.add("shown", {"lines": [float(len(lines))]})
    return figures


def printed_lines(path: Path) -> Iterator[Line]:
    """What `audit show` printed. Raises GateRefused."""
    for place, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield parsed_line(text)
        except (ValueError, KeyError, TypeError):
            raise GateRefused(f"audit log: line {place} of {path} can not be read") from None


def _missing(seen: str, lines: list[Line]) -> str | None:
    number, _, mac = seen.partition(":")
    if not number.isdigit() or not mac:
        raise UserError(f"--at-least {seen}: write NUMBER:MAC, as in a receipt's audit_line")
    if any(line.number == int(number) and line.mac == mac for line in lines):
        return None
    return f"line {number} with this MAC is not there: the log is not the one that it was seen in"
