"""`tillwise-serve keys create | list | revoke`: who may call the gateway."""

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from serving.api.auth import digest_of_key, new_key
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.settings import Settings
from serving.state.control_store import ROLES
from serving.state.secrets import load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("keys", help="create, list or revoke API keys")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="print a new key, this once")
    create.add_argument("--role", choices=ROLES, required=True)
    revoke = actions.add_parser("revoke", help="end a key at once")
    revoke.add_argument("key_id", metavar="ID")
    listed = actions.add_parser("list", help="ids and roles of all keys")
    for parser, action in ((create, _create), (listed, _list), (revoke, _revoke)):
        add_folders(parser, "state")
        add_json(parser)
        parser.set_defaults(run=_runner(action))


def _runner(action: Any) -> Any:
    """`action` on the control store of the state folder; it may be in use by a gateway."""

    def run(args: argparse.Namespace) -> Figures:
        settings = settings_of(args)
        if action is not _create and not (settings.state / CONTROL).is_file():
            raise UserError(f"state folder {settings.state} does not exist or holds no keys")
        control = SqliteControlStore(settings.state / CONTROL)
        try:
            work: Coroutine[Any, Any, Figures] = action(args, settings, control)
            return asyncio.run(work)
        finally:
            control.close()

    return run


async def _create(
    args: argparse.Namespace, settings: Settings, control: SqliteControlStore
) -> Figures:
    secrets = load_secrets(settings.state, settings.master_key)
    figures = Figures("keys create")
    api_key, key = new_key(args.role, SystemClock().now(), secrets)
    await control.add_key(key, digest_of_key(api_key))
    print(api_key)
    # The secret stands nowhere but on the screen: not in the figures, not in the store.
    figures.add(key.key_id, {})
    return figures


async def _list(
    args: argparse.Namespace, settings: Settings, control: SqliteControlStore
) -> Figures:
    figures = Figures("keys list")
    for key in control.list_keys():
        state = "in force" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d}"
        print(f"{key.key_id}  {key.role:8}  created {key.created_at:%Y-%m-%d}  {state}")
        figures.add(key.key_id, {"in_force": [float(key.revoked_at is None)]})
    return figures


async def _revoke(
    args: argparse.Namespace, settings: Settings, control: SqliteControlStore
) -> Figures:
    if not await control.revoke_key(args.key_id, SystemClock().now()):
        raise UserError("there is no key in force with this id; see `tillwise-serve keys list`")
    print(f"key {args.key_id} is revoked")
    figures = Figures("keys revoke")
    figures.add(args.key_id, {})
    return figures
