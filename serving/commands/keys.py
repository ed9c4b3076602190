"""`tillwise-serve keys create | list | revoke`: who may call the gateway; and `rotate | rewrap |
status`: the master key that everything else hangs on.

A new master key comes first, the old one stays behind it until nothing hangs on it any more:
`rotate` does that in the key file while no gateway runs; where the key comes from a setting, put
the new one before the old one, restart, and `rewrap` beside the running gateways. Look-up digests
follow as shoppers come back, because nobody can make them without the raw id. Whoever has not come
back is found by the old key alone, with what they withdrew: it may go only when they do.
"""

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from serving.api.auth import digest_of_key, new_key
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.control import open_control, require_control, secrets_of
from serving.settings import Settings
from serving.state.audit import COMMAND_LINE
from serving.state.control_records import ROLES
from serving.state.secrets import KEY_FILE, Secrets, drop_old_masters, new_master
from serving.state.sql_control_store import SqlControlStore
from serving.state.state_folder import StateFolder


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("keys", help="create, list, revoke or rotate keys")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="print a new key, this once")
    create.add_argument("--role", choices=ROLES, required=True)
    revoke = actions.add_parser("revoke", help="end a key at once")
    revoke.add_argument("key_id", metavar="ID")
    listed = actions.add_parser("list", help="ids and roles of all keys")
    rotate = actions.add_parser("rotate", help="put a new master key into use (gateway stopped)")
    rotate.add_argument(
        "--drop-old",
        action="store_true",
        help="only remove the older master keys; refused while shoppers are found by them alone",
    )
    rotate.add_argument(
        "--erase-unseen",
        action="store_true",
        help="with --drop-old: erase the shoppers who have not come back since; a device that has "
        "not, of somebody who has, becomes a new one",
    )
    rewrap = actions.add_parser("rewrap", help="hang every key on the newest master key")
    status = actions.add_parser("status", help="how many keys hang on which master key")
    for parser, action in (
        (create, _create),
        (listed, _list),
        (revoke, _revoke),
        (rewrap, _rewrap),
        (status, _status),
    ):
        add_folders(parser, "state")
        add_json(parser)
        parser.set_defaults(run=_runner(action))
    add_folders(rotate, "state")
    add_json(rotate)
    rotate.set_defaults(run=_rotate)


def _runner(action: Any) -> Any:
    """`action` on the control store of the state folder; it may be in use by a gateway."""

    def run(args: argparse.Namespace) -> Figures:
        settings = settings_of(args)
        if action is not _create:
            require_control(settings, "keys")
        control = open_control(settings, secrets_of(settings))
        try:
            work: Coroutine[Any, Any, Figures] = action(args, settings, control)
            return asyncio.run(work)
        finally:
            control.close()

    return run


async def _create(
    args: argparse.Namespace, settings: Settings, control: SqlControlStore
) -> Figures:
    secrets = secrets_of(settings)
    figures = Figures("keys create")
    api_key, key = new_key(args.role, SystemClock().now(), secrets)
    await control.add_key(key, digest_of_key(api_key), COMMAND_LINE)
    print(api_key)
    # The secret stands nowhere but on the screen: not in the figures, not in the store.
    figures.add(key.key_id, {})
    return figures


async def _list(args: argparse.Namespace, settings: Settings, control: SqlControlStore) -> Figures:
    figures = Figures("keys list")
    for key in control.list_keys():
        state = "in force" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d}"
        print(f"{key.key_id}  {key.role:8}  created {key.created_at:%Y-%m-%d}  {state}")
        figures.add(key.key_id, {"in_force": [float(key.revoked_at is None)]})
    return figures


async def _revoke(
    args: argparse.Namespace, settings: Settings, control: SqlControlStore
) -> Figures:
    if not await control.revoke_key(args.key_id, SystemClock().now(), COMMAND_LINE):
        raise UserError("there is no key in force with this id; see `tillwise-serve keys list`")
    print(f"key {args.key_id} is revoked")
    figures = Figures("keys revoke")
    figures.add(args.key_id, {})
    return figures


async def _rewrap(
    args: argparse.Namespace, settings: Settings, control: SqlControlStore
) -> Figures:
    figures = Figures("keys rewrap")
    count = await control.rewrap(COMMAND_LINE)
    print(f"{count} keys hang on the newest master key now")
    figures.add("rewrapped", {"keys": [float(count)]})
    return figures


async def _status(
    args: argparse.Namespace, settings: Settings, control: SqlControlStore
) -> Figures:
    figures = Figures("keys status")
    newest = secrets_of(settings).newest
    for table, versions in control.key_versions().items():
        for version, count in sorted(versions.items()):
            mark = "newest" if version == newest else "older"
            print(f"{table:13} {count:9,} under {version} ({mark})")
            figures.add(f"{table}/{version}", {"count": [float(count)]})
    return figures


def _rotate(args: argparse.Namespace) -> Figures:
    """With the key file, while no gateway runs: a new key in front, everything hung on it."""
    settings = settings_of(args)
    if args.erase_unseen and not args.drop_old:
        raise UserError("--erase-unseen goes with --drop-old")
    if settings.master_key is not None:
        raise UserError(
            "the master key comes from TILLWISE_MASTER_KEY: put a new one before it there, "
            "separated by a comma, restart the gateways, then run `tillwise-serve keys rewrap`"
        )
    require_control(settings, "keys")
    path = settings.master_key_file or settings.state / KEY_FILE
    with StateFolder(settings.state):
        secrets = secrets_of(settings)
        if not args.drop_old:
            secrets = new_master(path, secrets)
        erased = asyncio.run(_let_go(args, settings, secrets)) if args.drop_old else 0
        count = asyncio.run(_hang_on(settings, secrets))
        if args.drop_old:  # only now that nothing hangs on them
            secrets = drop_old_masters(path, secrets)
    done = "the older master keys are gone" if args.drop_old else "a new master key is in use"
    print(f"{done}; {count} keys were wrapped anew, {erased} shoppers erased")
    figures = Figures("keys rotate")
    counted = {"keys": count, "master_keys": len(secrets.masters), "erased": erased}
    figures.add("rotated", {name: [float(number)] for name, number in counted.items()})
    return figures


async def _let_go(args: argparse.Namespace, settings: Settings, secrets: Secrets) -> int:
    """Erase who is found by an older master key alone, and say how many that were. Raises UserError
    where there is anybody and that was not asked for."""
    # Only here: it brings the compiled loops of features along.
    from serving.commands.stopped import opened_rights

    control = open_control(settings, secrets)
    try:
        versions = control.key_versions()["subjects"]
        older = sum(count for version, count in versions.items() if version != secrets.newest)
        if not older:
            return 0
        unseen = control.unseen()
        if not args.erase_unseen:
            raise UserError(
                f"{older} look-up digests hang on older master keys: without them the gateway "
                "would forget whose they are and what was withdrawn. They follow as shoppers come "
                "back (see `keys status`); --erase-unseen erases who has not, "
                f"{len(unseen)} people, with all that is held of them"
            )
        async with opened_rights(settings, control, secrets, SystemClock()) as (_, rights):
            for subject_id in unseen:
                await rights.erase(subject_id, COMMAND_LINE)
        await control.drop_older_digests()
        return len(unseen)
    finally:
        control.close()


async def _hang_on(settings: Settings, secrets: Secrets) -> int:
    control = open_control(settings, secrets)
    try:
        return await control.rewrap(COMMAND_LINE)
    finally:
        control.close()
