"""Erasures in tables, and the exports that they must reach."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from serving.state import control_erasure, erasure_records
from serving.state import control_subjects as subjects
from serving.state.audit import Actor
from serving.state.control_records import Erased, Export, FactKeeper
from serving.state.control_subjects import Writing
from serving.state.sql_control_tables import ControlTables

# Notes by keeper; the end is the character after the colon.
_KEEPER: Final = "facts:"
_KEEPER_END: Final = "facts;"


class SqlErasures(ControlTables):
    """Erasures and exports of a `ControlStore`."""

    async def erase(self, subject_id: str, by: Actor) -> Erased | None:
        def write(writing: Writing) -> Erased | None:
            if subjects.audit_name(writing.connection, subject_id) is None:
                return None
            return control_erasure.erase(writing, subject_id, by)

        return await self._write(write)

    def erasures(self) -> int:
        row = self._one("SELECT number FROM erasure_count")
        return 0 if row is None else int(row[0])

    def unfinished_erasures(self) -> tuple[bytes, ...]:
        rows = self._read(
            lambda connection: connection.execute("SELECT log_key FROM erasures").fetchall()
        )
        return tuple(row[0] for row in rows)

    async def finish_erasures(self, log_keys: Sequence[bytes]) -> None:
        await self._run(
            lambda connection: connection.executemany(
                "DELETE FROM erasures WHERE log_key = ?", [(one,) for one in log_keys]
            )
        )

    def erasures_kept(self) -> list[Erased]:
        return self._read(lambda connection: erasure_records.held(connection, self._secrets))

    async def note_erasure(self, erased: Erased) -> None:
        at = self._clock.now().isoformat()
        await self._run(
            lambda connection: erasure_records.change(connection, self._secrets, erased, at)
        )

    async def drop_erasure(self, erasure_id: str) -> None:
        await self._run(lambda connection: erasure_records.drop(connection, erasure_id))

    def fact_keepers(self) -> list[FactKeeper]:
        rows = self._read(
            lambda connection: connection.execute(
                "SELECT name, value FROM notes WHERE name > ? AND name < ?", (_KEEPER, _KEEPER_END)
            ).fetchall()
        )
        said = ((name.removeprefix(_KEEPER), json.loads(value)) for name, value in rows)
        return [
            FactKeeper(name, one["erasures"], datetime.fromisoformat(one["said_at"]))
            for name, one in said
        ]

    async def note_fact_keeper(self, keeper: FactKeeper) -> None:
        said = {"erasures": keeper.erasures, "said_at": keeper.said_at.isoformat()}
        row = (_KEEPER + keeper.keeper_id, json.dumps(said))
        await self._run(
            lambda connection: connection.execute(
                "INSERT INTO notes VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                row,
            )
        )

    def exports(self) -> list[Export]:
        rows = self._read(
            lambda connection: connection.execute(
                "SELECT export_id, folder, made_at, wrapped FROM exports ORDER BY made_at"
            ).fetchall()
        )
        unwrap = self._secrets.unwrap
        return [
            Export(one, folder, datetime.fromisoformat(at), unwrap(b"export:" + one.encode(), key))
            for one, folder, at, key in rows
        ]

    async def add_export(self, export: Export) -> None:
        wrapped = self._secrets.wrap(b"export:" + export.export_id.encode(), export.key)
        row = (export.export_id, export.folder, export.made_at.isoformat(), wrapped)
        await self._run(
            lambda connection: connection.execute("INSERT INTO exports VALUES (?, ?, ?, ?)", row)
        )

    async def drop_export(self, export_id: str) -> None:
        await self._run(
            lambda connection: connection.execute(
                "DELETE FROM exports WHERE export_id = ?", (export_id,)
            )
        )
