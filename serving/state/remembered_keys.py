"""The shop's own keys, wrapped as the shared control store holds them, beside a gateway's copy of
it: with them a gateway starts while the database is away. They open nothing without the master
key."""

import json
import os
from pathlib import Path

from contract.whole_file import replacing
from serving.state import control_keys
from serving.state.secrets import Secrets, UnknownMasterKey
from serving.state.sql import Sql

FILE = "service_keys.json"


def remember(folder: Path, connection: Sql) -> None:
    """Write down those that `connection` holds."""
    rows = connection.execute("SELECT name, wrapped FROM service_keys").fetchall()
    held = {name: bytes(wrapped).hex() for name, wrapped in rows}
    with replacing(folder / FILE) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json.dumps(held, sort_keys=True).encode() + b"\n")


def remembered(folder: Path, secrets: Secrets) -> dict[str, bytes] | None:
    """By name; None where they were never written down here, or other master keys opened them."""
    try:
        held = json.loads((folder / FILE).read_bytes())
        return {
            name: secrets.unwrap(b"service:" + name.encode(), bytes.fromhex(held[name]))
            for name in control_keys.SERVICE_KEYS
        }
    except (OSError, ValueError, KeyError, TypeError, UnknownMasterKey):
        return None
