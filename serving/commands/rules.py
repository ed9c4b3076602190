"""`tillwise-serve rules import | export | check | history`: the override rules as a file in YAML or
JSON. A running gateway takes an import over within a second."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.state.audit import COMMAND_LINE
from serving.state.documents import DocumentConflict
from serving.state.sql_control_store import SqlControlStore
from serving.yaml_text import as_yaml, yaml_body

if TYPE_CHECKING:
    from contract.rules import RuleBook

_ON_SCREEN = "-"
_MOST_TOLD = 50


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("rules", help="import, export or check the override rules")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    written = actions.add_parser("import", help="replace the rules by those of a file")
    written.add_argument("file", type=Path, metavar="FILE")
    written.add_argument("--note", default="", help="what for, kept with the version")
    written.add_argument(
        "--version", type=int, help="refuse unless this is the version that it replaces"
    )
    read = actions.add_parser("export", help="write the rules to a file")
    read.add_argument("file", metavar="FILE", help="or - for the screen")
    read.add_argument("--version", type=int, help="an earlier one")
    checked = actions.add_parser("check", help="say what is wrong with a file, writing nothing")
    checked.add_argument("file", type=Path, metavar="FILE")
    history = actions.add_parser("history", help="who wrote which version, the newest first")
    for parser, action in ((written, _import), (read, _export), (history, _history)):
        add_folders(parser, "state")
        add_json(parser)
        parser.set_defaults(run=_runner(action))
    add_json(checked)
    checked.set_defaults(run=_check)


def _runner(action: Callable[[argparse.Namespace, SqlControlStore], Figures]) -> Any:
    """`action` on the control store; it may be in use by a gateway."""

    def run(args: argparse.Namespace) -> Figures:
        settings = settings_of(args)
        require_control(settings, "rules")
        control = open_control(settings, secrets_of(settings))
        try:
            return action(args, control)
        finally:
            control.close()

    return run


def _import(args: argparse.Namespace, control: SqlControlStore) -> Figures:
    from serving.decision.rule_book import DOCUMENT, body_of

    book = read_book(args.file)
    try:
        written = asyncio.run(
            control.put_document(DOCUMENT, body_of(book), args.version, COMMAND_LINE, args.note)
        )
    except DocumentConflict as conflict:
        raise UserError(f"rules: version {conflict.current} is the current one") from None
    print(f"version {written.version}: {len(book.rules)} rules")
    return _figures("rules import", len(book.rules), written.version)


def _export(args: argparse.Namespace, control: SqlControlStore) -> Figures:
    from contract.rules import RuleBook
    from serving.decision.rule_book import DOCUMENT

    document = control.document(DOCUMENT, args.version)
    if document is None and args.version is not None:
        raise UserError(f"there is no version {args.version} of the rules")
    book = RuleBook() if document is None else RuleBook.model_validate_json(document.body)
    if args.file == _ON_SCREEN:
        sys.stdout.write(as_yaml(book))
    else:
        Path(args.file).write_text(as_yaml(book), encoding="utf-8")
    return _figures("rules export", len(book.rules), 0 if document is None else document.version)


def _history(args: argparse.Namespace, control: SqlControlStore) -> Figures:
    from serving.decision.rule_book import DOCUMENT

    heads = control.document_history(DOCUMENT, limit=_MOST_TOLD)
    for head in heads:
        print(f"{head.version:6}  {head.written_at:%Y-%m-%d %H:%M}  {head.by.key_id}  {head.note}")
    figures = Figures("rules history")
    figures.add("versions", {"count": [float(heads[0].version if heads else 0)]})
    return figures


def _check(args: argparse.Namespace) -> Figures:
    book = read_book(args.file)
    print(f"{len(book.rules)} rules, nothing wrong")
    return _figures("rules check", len(book.rules), 0)


def read_book(path: Path) -> "RuleBook":
    """The rules of a file, which may be saved. Raises UserError with the place of a fault."""
    # Only here: they bring the compiled loops along, which help can do without.
    from contract.rule_set import RuleRefused, checked_set
    from contract.rules import RuleBook
    from serving.api.problems import path_of

    try:
        body = yaml_body(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    try:
        book = RuleBook.model_validate(body)
        checked_set(book)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        said = str(first["msg"]).removeprefix("Value error, ")
        raise UserError(f"{path}: {path_of(first['loc'])}: {said}") from None
    except RuleRefused as refused:
        whose = "" if refused.rule_id is None else f"rule {refused.rule_id}: {refused.field}: "
        raise UserError(f"{path}: {whose}{refused}") from None
    return book


def _figures(command: str, rules: int, version: int) -> Figures:
    figures = Figures(command)
    figures.add("rules", {"count": [float(rules)], "version": [float(version)]})
    return figures
