"""Choices that were made at checkout, from simulated checkouts and from Olist's orders."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contract.errors import UserError
from training.data.checkouts import read_checkouts
from training.data.storage import read_parquet

Kind = Literal["payment", "shipping"]
OLIST_COLUMNS = ("order_id", "payment_sequential", "payment_type", "payment_value")


@dataclass(frozen=True)
class Choice:
    """One choice: what there was, what was known, and what was taken."""

    options: tuple[str, ...]
    taken: str
    value: float  # of the order, minor units
    subject: int
    region: str | None = None
    device: str | None = None
    own: dict[str, int] = field(default_factory=dict)  # what the same shopper took before


def read_choices(folder: Path, kind: Kind) -> list[Choice]:
    """The choices of simulated checkouts, in the order of time. UserError as `read_checkouts`.

    A person's earlier choices are known where the region is: both need `personalization`.
    """
    rows = sorted(read_checkouts(folder).to_pylist(), key=lambda row: row["decided_at"])
    numbers: dict[str, int] = {}
    history: dict[int, Counter[str]] = {}
    choices = []
    for row in rows:
        taken = row["payment_type"] if kind == "payment" else row["shipping_tier"]
        if taken is None:
            continue
        subject = numbers.setdefault(row["subject_id"], len(numbers))
        own = history.setdefault(subject, Counter())
        context: dict[str, Any] = row["context"] or {}
        personal = context.get("region") is not None
        options = (
            row["payment_methods"]
            if kind == "payment"
            else [option["id"] for option in row["shipping_options"]]
        )
        choices.append(
            Choice(
                options=tuple(options),
                taken=taken,
                value=float(row["value"]),
                subject=subject,
                region=context.get("region"),
                device=context.get("device"),
                own=dict(own) if personal else {},
            )
        )
        own[taken] += 1
    return choices


def read_olist(path: Path) -> list[Choice]:
    """How Olist's orders were paid, known by nothing but the order's value.

    Instalments and the number of parts are never read into a choice: a card alone has instalments,
    and vouchers come in parts, so both tell the answer. The type is that of the first part, the
    value that of all. Raises UserError where a column is missing.
    """
    table = read_parquet(path)
    missing = [name for name in OLIST_COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}")
    taken: dict[str, tuple[int, str]] = {}
    value: dict[str, float] = {}
    for order, part, kind, paid in zip(
        *(table[name].to_pylist() for name in OLIST_COLUMNS), strict=True
    ):
        value[order] = value.get(order, 0.0) + 100.0 * paid
        if order not in taken or part < taken[order][0]:
            taken[order] = (part, kind)
    known = {order: kind for order, (_, kind) in taken.items() if kind != "not_defined"}
    options = tuple(sorted(set(known.values())))
    return [
        Choice(options=options, taken=kind, value=float(np.round(value[order])), subject=number)
        for number, (order, kind) in enumerate(known.items())
    ]
