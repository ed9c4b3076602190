"""The API keys that a shared control store vouched for here, in the state folder and sealed under
the master key: a gateway that starts while the store is away lets its callers in by them."""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from contract.whole_file import replacing
from serving.state.control_records import ApiKey
from serving.state.secrets import Secrets, UnknownMasterKey

log = logging.getLogger(__name__)

Held = tuple[ApiKey, str | None]  # and the digest of its secret, where that was sent
_NAME = b"callers"


@dataclass(frozen=True)
class CallersFile:
    """Replaced whole; what can not be read or was changed holds nobody."""

    path: Path
    secrets: Secrets

    def read(self) -> list[Held]:
        """Keys in force when last written."""
        try:
            rows = json.loads(self.secrets.unwrap(_NAME, self.path.read_bytes()))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, UnknownMasterKey) as error:
            log.warning("the callers of before are not known: %s", error)
            return []
        return [
            (
                ApiKey(key_id, role, datetime.fromisoformat(made), None, bytes.fromhex(sealed)),
                digest,
            )
            for key_id, role, made, sealed, digest in rows
        ]

    def write(self, held: Iterable[Held]) -> None:
        """A disk that fails costs only what is remembered here."""
        rows = [
            (key.key_id, key.role, key.created_at.isoformat(), key.sealed.hex(), digest)
            for key, digest in held
        ]
        try:
            with replacing(self.path) as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(self.secrets.wrap(_NAME, json.dumps(rows).encode()))
        except OSError as error:
            log.warning("the callers of now are not remembered: %s", error)
