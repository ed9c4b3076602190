"""`tillwise-serve settings`: every environment variable that is a setting, with its default, what
it means, and whether it is set here."""

import argparse
import json
import os
import textwrap

from pydantic_core import PydanticUndefined, to_jsonable_python

from contract.figures import Figures
from serving.commands.arguments import add_json
from serving.settings import Settings, mistaken

_WIDTH = 100
_INDENT = " " * 6
_LONGEST = 60


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("settings", help="list every setting")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Print them, those that are set here marked. No value is printed: some are secrets."""
    figures = Figures("settings")
    prefix = str(Settings.model_config["env_prefix"])
    held = {key.upper() for key in os.environ}
    for name, field in Settings.model_fields.items():
        variable = prefix + name.upper()
        print(f"{'*' if variable in held else ' '} {variable}{_default(field.get_default())}")
        described = textwrap.wrap(field.description or "", _WIDTH - len(_INDENT))
        print(textwrap.indent("\n".join(described), _INDENT))
        figures.add(variable, {"set": [float(variable in held)]})
    figures.notes += mistaken(os.environ)
    for line in figures.notes:
        print(f"! {line}")
    return figures


def _default(value: object) -> str:
    if value in (None, PydanticUndefined, ""):
        return ""
    plain = to_jsonable_python(value)
    text = plain if isinstance(plain, str) else json.dumps(plain)
    return f" (default: {text})" if len(text) <= _LONGEST else ""
