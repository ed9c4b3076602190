"""Keys in tables: those of subjects' data and of the shop, and the API's."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from contract.clock import Clock
from serving.state import control_keys
from serving.state.audit import GATEWAY, Actor
from serving.state.control_records import ApiKey, SubjectKey
from serving.state.control_subjects import Writing
from serving.state.held_keys import HeldKeys
from serving.state.secrets import Secrets
from serving.state.sql_control_tables import ControlTables

_KEY = "SELECT key_id, role, created_at, revoked_at, sealed FROM api_keys"


class SqlKeys(ControlTables):
    """Keys of a `ControlStore`."""

    def __init__(self, secrets: Secrets, clock: Clock | None) -> None:
        super().__init__(secrets, clock)
        self._by_digest, self._by_id = HeldKeys(), HeldKeys()

    def subject_key(self, subject_id: str) -> SubjectKey | None:
        return self._read(
            lambda connection: control_keys.subject_key(
                connection, self._secrets, "subject_id", subject_id
            )
        )

    def subject_key_by_log_key(self, log_key: bytes) -> SubjectKey | None:
        return self._read(
            lambda connection: control_keys.subject_key(
                connection, self._secrets, "log_key", log_key
            )
        )

    def keys_with_histories(self, subject_id: str) -> list[SubjectKey]:
        return self._read(
            lambda connection: control_keys.keys_with_histories(
                connection, self._secrets, subject_id
            )
        )

    def keys_of(self, subject_ids: Sequence[str]) -> list[SubjectKey]:
        return self._read(
            lambda connection: list(
                control_keys.subject_keys(connection, self._secrets, "subject_id", subject_ids)
            )
        )

    def subject_keys(
        self, *, subject_ids: Iterable[str] = (), log_keys: Iterable[bytes] = ()
    ) -> Iterator[SubjectKey]:
        with self._read_beside() as connection:
            found = control_keys.subject_keys
            yield from found(connection, self._secrets, "subject_id", subject_ids)
            yield from found(connection, self._secrets, "log_key", log_keys)

    def service_key(self, name: str) -> bytes:
        return self._read(
            lambda connection: control_keys.service_key(connection, self._secrets, name)
        )

    def key_versions(self) -> dict[str, dict[str, int]]:
        """By table: how many keys hang on which master key."""
        return self._read(control_keys.versions)

    def unseen(self) -> list[str]:
        """Of the people who are found by an older master key alone, the subject that owns their
        history."""
        newest = self._secrets.newest
        return self._read(lambda connection: control_keys.unseen(connection, newest))

    async def drop_older_digests(self) -> None:
        """Forget by which older master keys subjects were found."""
        newest = self._secrets.newest
        await self._run(
            lambda connection: connection.execute(
                "DELETE FROM subjects WHERE key_version <> ?", (newest,)
            )
        )

    async def rewrap(self, by: Actor) -> int:
        """Wrap every key anew that is not under the newest master key, some in a transaction;
        returns how many. Raises UnknownMasterKey: those done before stay done."""
        total = 0
        while done := await self._write(
            lambda writing: control_keys.rewrap_some(writing.connection, self._secrets)
        ):
            total += done
        newest = self._secrets.newest
        await self._write(
            lambda writing: writing.audit("keys.rewrapped", by, count=total, master=newest)
        )
        return total

    async def add_key(self, key: ApiKey, digest: str, by: Actor = GATEWAY) -> None:
        def write(writing: Writing) -> None:
            writing.connection.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, NULL, ?)",
                (key.key_id, digest, key.role, key.created_at.isoformat(), key.sealed),
            )
            writing.audit("key.created", by, key_id=key.key_id, role=key.role)
            writing.changed()

        await self._write(write)

    def key_by_digest(self, digest: str) -> ApiKey | None:
        query = f"{_KEY} WHERE digest = ? AND revoked_at IS NULL"
        return self._by_digest.of(digest, lambda digest: _key(self._one(query, digest)))

    def key_by_id(self, key_id: str) -> ApiKey | None:
        query = f"{_KEY} WHERE key_id = ? AND revoked_at IS NULL"
        return self._by_id.of(key_id, lambda key_id: _key(self._one(query, key_id)))

    def list_keys(self) -> list[ApiKey]:
        rows = self._read(
            lambda connection: connection.execute(f"{_KEY} ORDER BY created_at, key_id").fetchall()
        )
        return [key for row in rows if (key := _key(row)) is not None]

    async def revoke_key(self, key_id: str, at: datetime, by: Actor = GATEWAY) -> bool:
        def write(writing: Writing) -> bool:
            cursor = writing.connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
                (at.isoformat(), key_id),
            )
            if cursor.rowcount:
                writing.audit("key.revoked", by, key_id=key_id)
                writing.changed()
            return bool(cursor.rowcount)

        revoked = await self._write(write)
        self._by_digest.clear()
        self._by_id.clear()
        return revoked


def _key(row: tuple[Any, ...] | None) -> ApiKey | None:
    if row is None:
        return None
    revoked = None if row[3] is None else datetime.fromisoformat(row[3])
    return ApiKey(row[0], row[1], datetime.fromisoformat(row[2]), revoked, row[4])
