"""What is kept of an erasure until all of it is done, so that whoever asked can ask again, a crash
loses nothing and the receipt says the whole. It names the person's subjects, and is therefore
sealed under the master key; once all is done it goes with the receipt, or after a day."""

import json
from dataclasses import asdict
from typing import Any

from serving.state.audit import Line
from serving.state.control_records import Erased
from serving.state.secrets import Secrets
from serving.state.sql import Sql


def name_of(erasure_id: str) -> bytes:
    """What the record is bound to when it is sealed."""
    return b"erasure:" + erasure_id.encode()


def add(connection: Sql, secrets: Secrets, erased: Erased) -> None:
    """Keep `erased`, in the transaction that destroys the keys."""
    row = (erased.erasure_id, _sealed(secrets, erased), "")
    connection.execute("INSERT INTO erasure_records VALUES (?, ?, ?)", row)


def held(connection: Sql, secrets: Secrets) -> list[Erased]:
    """All that are kept, those that are finished too."""
    rows = connection.execute("SELECT erasure_id, wrapped FROM erasure_records").fetchall()
    return [_opened(secrets, erasure_id, wrapped) for erasure_id, wrapped in rows]


def change(connection: Sql, secrets: Secrets, erased: Erased, at: str) -> None:
    """Note how far it has come; one that is gone stays gone."""
    connection.execute(
        "UPDATE erasure_records SET wrapped = ?, finished_at = ? WHERE erasure_id = ?",
        (_sealed(secrets, erased), at if erased.finished else "", erased.erasure_id),
    )


def drop(connection: Sql, erasure_id: str) -> None:
    """Its receipt was given."""
    connection.execute("DELETE FROM erasure_records WHERE erasure_id = ?", (erasure_id,))


def let_go(connection: Sql, before: str) -> None:
    """Forget those that were finished before then and that nobody asked for again."""
    connection.execute(
        "DELETE FROM erasure_records WHERE finished_at <> '' AND finished_at < ?", (before,)
    )


def _sealed(secrets: Secrets, erased: Erased) -> bytes:
    said = asdict(erased) | {
        "log_keys": [one.hex() for one in erased.log_keys],
        "traces": [one.hex() for one in erased.traces],
    }
    return secrets.wrap(name_of(erased.erasure_id), json.dumps(said).encode())


def _opened(secrets: Secrets, erasure_id: str, wrapped: bytes) -> Erased:
    said: dict[str, Any] = json.loads(secrets.unwrap(name_of(erasure_id), wrapped))
    return Erased(
        **said
        | {
            "subject_ids": tuple(said["subject_ids"]),
            "exports": tuple(said["exports"]),
            "log_keys": tuple(map(bytes.fromhex, said["log_keys"])),
            "traces": tuple(map(bytes.fromhex, said["traces"])),
            "line": Line(**said["line"]),
        }
    )
