"""The master key, and a key of its own for every purpose derived from it.

Pseudonyms are looked up under every key that is held, newest first, so that a rotated master key
re-keys the subjects table as shoppers come back.
"""

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.consent import pseudonymise
from contract.errors import UserError

KEY_BYTES = 32
KEY_FILE = "master.key"


@dataclass(frozen=True)
class Pseudonym:
    """A raw id under one lookup key; `key_version` names that key."""

    key_version: str
    digest: str


Pseudonyms = tuple[Pseudonym, ...]  # of one raw id, newest key first


@dataclass(frozen=True)
class Secrets:
    """Master keys, newest first; at least one."""

    masters: tuple[bytes, ...]

    def derive(self, purpose: str, master: bytes | None = None) -> bytes:
        """The 32-byte key for `purpose` (of the newest master unless told)."""
        return hmac.new(
            master or self.masters[0], f"tillwise:{purpose}".encode(), hashlib.sha256
        ).digest()

    def pseudonyms(self, raw_id: str, kind: Literal["visitor", "user"]) -> Pseudonyms:
        """`raw_id` under every lookup key held."""
        return tuple(
            Pseudonym(
                self.version_of(master), pseudonymise(raw_id, kind, self.derive("lookup", master))
            )
            for master in self.masters
        )

    def version_of(self, master: bytes) -> str:
        """A short public name of a master key."""
        return self.derive("version", master).hex()[:8]

    def seal(self, key_id: str, secret: bytes) -> bytes:
        """`secret` (32 bytes) hidden under a one-time pad that only this key id has."""
        return _exclusive_or(secret, self._pad(key_id, self.masters[0]))

    def unseal(self, key_id: str, sealed: bytes) -> tuple[bytes, ...]:
        """What `sealed` may hold, one candidate per master key; a wrong one verifies nothing."""
        return tuple(_exclusive_or(sealed, self._pad(key_id, key)) for key in self.masters)

    def _pad(self, key_id: str, master: bytes) -> bytes:
        return hmac.new(self.derive("seal", master), key_id.encode(), hashlib.sha256).digest()


def _exclusive_or(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def load_secrets(state: Path, master_key: str | None) -> Secrets:
    """From the setting, or else from the state folder's file, which is made when it is missing.

    Raises UserError when a key is not 32 bytes of base64, without repeating it.
    """
    if master_key is not None:
        return Secrets(_parsed(master_key.split(","), "setting TILLWISE_MASTER_KEY"))
    path = state / KEY_FILE
    if not path.exists():
        _create(path)
    return Secrets(_parsed(path.read_text().split(), str(path)))


def _parsed(texts: list[str], source: str) -> tuple[bytes, ...]:
    try:
        keys = tuple(base64.b64decode(text.strip(), validate=True) for text in texts)
    except binascii.Error:
        keys = ()
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise UserError(f"{source}: expected {KEY_BYTES} bytes in base64")
    return keys


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Linked into place, so that of two first starts one wins and neither reads half a key.
    draft = path.with_name(f"{KEY_FILE}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
