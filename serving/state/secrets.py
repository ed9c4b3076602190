"""The master key, and what follows from it: a key of its own for every purpose, and the wrapping of
the keys that are drawn at random (one per subject, one for the audit log, one for receipts).

Pseudonyms are looked up under every master key that is held, newest first, so that a rotated master
key re-keys the subjects table as shoppers come back. Wrapped keys name the master key that opens
them; `tillwise-serve keys rewrap` wraps them all anew under the newest.
"""

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contract.consent import pseudonymise
from contract.errors import UserError
from contract.keyed_hash import KeyedHash
from contract.whole_file import replacing
from serving.state.state_folder import CONTROL, EVENTS

KEY_BYTES = 32
KEY_FILE = "master.key"
_VERSION_BYTES = 4
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Pseudonym:
    """A raw id under one lookup key; `key_version` names that key."""

    key_version: str
    digest: str


Pseudonyms = tuple[Pseudonym, ...]  # of one raw id, newest key first


class UnknownMasterKey(UserError):  # noqa: N818 - it names what is missing
    """Something was wrapped under a master key that is not held here, or was changed since."""


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
            Pseudonym(version, pseudonymise(raw_id, kind, key))
            for version, key in self._lookup_keys
        )

    def version_of(self, master: bytes) -> str:
        """A short public name of a master key."""
        return self.derive("version", master).hex()[: 2 * _VERSION_BYTES]

    @property
    def newest(self) -> str:
        """The version that everything is written under."""
        return self.version_of(self.masters[0])

    def wrap(self, name: bytes, key: bytes) -> bytes:
        """`key` under the newest master key, bound to `name`: version, nonce, AES-256-GCM."""
        nonce = os.urandom(_NONCE_BYTES)
        version = bytes.fromhex(self._newest_wrapping[0])
        return version + nonce + self._newest_wrapping[1].encrypt(nonce, key, version + name)

    def unwrap(self, name: bytes, wrapped: bytes) -> bytes:
        """What `wrap` hid. Raises UnknownMasterKey."""
        version, rest = wrapped[:_VERSION_BYTES], wrapped[_VERSION_BYTES:]
        wrapping = self._wrapping.get(version.hex())
        if wrapping is None:
            raise UnknownMasterKey(
                f"master key {version.hex()} is needed and not held; "
                "add it behind the newest one in TILLWISE_MASTER_KEY or in the key file"
            )
        try:
            return wrapping.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], version + name)
        except InvalidTag:
            raise UnknownMasterKey("a wrapped key was changed on disk and opens no more") from None

    def seal(self, key_id: str, secret: bytes) -> bytes:
        """`secret` of an API key, wrapped under its id."""
        return self.wrap(b"api:" + key_id.encode(), secret)

    def unseal(self, key_id: str, sealed: bytes) -> tuple[bytes, ...]:
        """What `sealed` may hold. An earlier version hid secrets under a one-time pad: then there
        is one candidate per master key, and a wrong one verifies nothing."""
        if len(sealed) == KEY_BYTES:
            return tuple(_exclusive_or(sealed, self._pad(key_id, key)) for key in self.masters)
        try:
            return (self.unwrap(b"api:" + key_id.encode(), sealed),)
        except UnknownMasterKey:
            return ()

    def _pad(self, key_id: str, master: bytes) -> bytes:
        return hmac.new(self.derive("seal", master), key_id.encode(), hashlib.sha256).digest()

    @cached_property
    def _newest_wrapping(self) -> tuple[str, AESGCM]:
        """The newest version and its cipher for wrapping."""
        return self.newest, self._wrapping[self.newest]

    @cached_property
    def _wrapping(self) -> dict[str, AESGCM]:
        return {self.version_of(key): AESGCM(self.derive("wrap", key)) for key in self.masters}

    @cached_property
    def _lookup_keys(self) -> tuple[tuple[str, KeyedHash], ...]:
        return tuple(
            (self.version_of(key), KeyedHash(self.derive("lookup", key))) for key in self.masters
        )


def _exclusive_or(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def load_secrets(
    state: Path, master_key: str | None, key_file: Path | None = None, *, shared: bool = False
) -> Secrets:
    """From the setting, or else from `key_file`, or else from the state folder's own file, which is
    made with the folder's first store. `shared`: the store lies elsewhere, where others have
    written under a key that this folder can not know; then none is made.

    Raises UserError when a key is missing, or not 32 bytes of base64, without repeating it.
    """
    if master_key is not None:
        return Secrets(_parsed(master_key.split(","), "setting TILLWISE_MASTER_KEY"))
    path = key_file or state / KEY_FILE
    if key_file is None and not path.exists():
        _refuse_a_second_key(state, path, shared)
        _create(path)
    try:
        return Secrets(_parsed(path.read_text().split(), str(path)))
    except OSError as error:
        raise UserError(f"master key file {path}: {error.strerror}") from None


def _refuse_a_second_key(state: Path, path: Path, shared: bool) -> None:
    """A new key opens nothing that was written before; to make one would only hide that the right
    one is gone."""
    if shared:
        raise UserError(
            "a control store that gateways share needs their master key: set TILLWISE_MASTER_KEY "
            "or TILLWISE_MASTER_KEY_FILE (for a new shop, make one with: openssl rand -base64 32)"
        )
    written = [name for name in (CONTROL, EVENTS) if (state / name).exists()]
    if written:
        raise UserError(
            f"the master key {path} is gone, and {state / written[0]} was written under it: "
            "put it back, or name it in TILLWISE_MASTER_KEY or TILLWISE_MASTER_KEY_FILE"
        )


def new_master(path: Path, held: Secrets) -> Secrets:
    """Put a fresh master key before those in the file at `path`, which `held` were read from."""
    secrets = Secrets((os.urandom(KEY_BYTES), *held.masters))
    _write(path, secrets)
    return secrets


def drop_old_masters(path: Path, held: Secrets) -> Secrets:
    """Keep only the newest master key in the file at `path`."""
    secrets = Secrets(held.masters[:1])
    _write(path, secrets)
    return secrets


def _write(path: Path, secrets: Secrets) -> None:
    with replacing(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.writelines(base64.b64encode(key) + b"\n" for key in secrets.masters)


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
