"""What the shop has said of its items since their release was made: kept until it says otherwise,
numbered in the order of its saying, so that every gateway can follow."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from contract.catalogue import ItemChange
from serving.state.sql import Sql

Patch = Mapping[str, Any]  # fields of an ItemChange; one that is None is taken back


def patch(connection: Sql, patches: Iterable[tuple[str, Patch]]) -> int:
    """Lay `patches` by item id over what was said before; the number of this saying."""
    (latest,) = connection.execute(
        "SELECT coalesce(max(number), 0) FROM catalogue_changes"
    ).fetchone()
    number = int(latest) + 1
    for item_id, patched in patches:
        row = connection.execute(
            "SELECT said FROM catalogue_changes WHERE item_id = ?", (item_id,)
        ).fetchone()
        said = ({} if row is None else json.loads(row[0])) | dict(patched)
        # Kept also when nothing is left: other gateways must learn that it was taken back.
        connection.execute(
            "INSERT INTO catalogue_changes VALUES (?, ?, ?) ON CONFLICT (item_id) "
            "DO UPDATE SET number = excluded.number, said = excluded.said",
            (item_id, number, json.dumps(said)),
        )
    return number


def since(connection: Sql, number: int) -> list[tuple[str, ItemChange, int]]:
    """Item id, what is said of it, and the number of that, of everything after `number`."""
    rows = connection.execute(
        "SELECT item_id, said, number FROM catalogue_changes WHERE number > ? ORDER BY number",
        (number,),
    )
    return [(item_id, _read(said), int(at)) for item_id, said, at in rows]


def _read(said: str) -> ItemChange:
    held = json.loads(said)
    if held.get("regions") is not None:
        held["regions"] = tuple(held["regions"])
    return ItemChange(**{name: held.get(name) for name in asdict(ItemChange())})
