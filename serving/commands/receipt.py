"""`tillwise-serve receipt key | verify`: the proof that somebody was erased."""

import argparse
import json
from pathlib import Path

from contract.errors import GateRefused, UserError
from contract.figures import Figures
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.state.receipts import InvalidReceipt, ReceiptSigner, verify


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("receipt", help="verify a receipt of erasure")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    key = actions.add_parser("key", help="print the public key that receipts are signed with")
    key.set_defaults(run=_key)
    check = actions.add_parser("verify", help="whether a receipt was signed here and is unchanged")
    check.add_argument("file", type=Path, metavar="FILE", help="the answer to DELETE, as JSON")
    check.add_argument(
        "--public-key", metavar="BASE64", help="instead of the state folder's own key"
    )
    check.set_defaults(run=_verify)
    for parser in (key, check):
        add_folders(parser, "state")
        add_json(parser)


def _public_key(args: argparse.Namespace) -> str:
    settings = settings_of(args)
    require_control(settings, "key of receipts")
    control = open_control(settings, secrets_of(settings))
    try:
        return ReceiptSigner(control.service_key("receipt")).public_key
    finally:
        control.close()


def _key(args: argparse.Namespace) -> Figures:
    print(_public_key(args))
    return Figures("receipt key")


def _verify(args: argparse.Namespace) -> Figures:
    """Status 3 when it must not be believed."""
    public_key = args.public_key or _public_key(args)
    try:
        signed = json.loads(args.file.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{args.file}: is not JSON") from None
    try:
        receipt = verify(signed, public_key)
    except InvalidReceipt as problem:
        raise GateRefused(f"{args.file}: {problem}") from None
    print(
        f"subject {receipt['subject_id']} was erased at {receipt['erased_at']}: the receipt holds"
    )
    figures = Figures("receipt verify")
    figures.add("verified", {"events_removed": [float(receipt["events_removed"])]})
    return figures
