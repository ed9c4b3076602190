"""Choices that were made, as examples: what could be chosen, where, on what, for how much, what the
same shopper chose before, and what was chosen. Shapes: N choices, O options at most."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from contract.choices import Option
from contract.errors import UserError
from contract.events import EventContext
from training.data.checkouts import read_checkouts

Kind = Literal["payment", "shipping"]
_COLUMNS = {
    "payment": ("payment_methods", "payment_type"),
    "shipping": ("shipping_options", "shipping_tier"),
}
OLIST = "olist_order_payments_dataset.parquet"
_FEW = 2  # a choice of one is none


@dataclass(frozen=True)
class Choice:
    """One choice. `own`: how often the same shopper took each option before."""

    options: tuple[Option, ...]
    taken: int  # its place among the options
    context: EventContext
    value: int  # of the cart, minor units
    subject: str
    own: dict[str, float]


def choices_in(folder: Path, kind: Kind) -> list[Choice]:
    """The choices of `kind` in the log of checkouts below `folder`, in the order of time. Raises
    UserError where there is none."""
    offered, taken = _COLUMNS[kind]
    wanted = ["subject_id", "decided_at", "context", "value", offered, taken]
    log = read_checkouts(folder).select(wanted).sort_by("decided_at")
    before: dict[str, dict[str, float]] = defaultdict(dict)
    found = []
    for row in log.to_pylist():
        options = tuple(_option(one) for one in row[offered] or ())
        ids = [option.id for option in options]
        if row[taken] not in ids or len(ids) < _FEW:
            continue
        said = {name: value for name, value in (row["context"] or {}).items() if value is not None}
        subject = row["subject_id"]
        own = before[subject]
        found.append(
            Choice(
                *(options, ids.index(row[taken]), EventContext.model_validate(said)),
                *(row["value"], subject, dict(own)),
            )
        )
        own[row[taken]] = own.get(row[taken], 0.0) + 1.0
    if not found:
        raise UserError(f"{folder}: nobody chose a {kind} there")
    return found


def _option(said: Any) -> Option:
    return (
        Option(said) if isinstance(said, str) else Option(said["id"], said["price"], said["days"])
    )


def olist_payments(file: Path) -> list[Choice]:
    """What Olist's orders were paid with, from the order's value alone: instalments and the number
    of payments are known only once it is chosen, so they are no inputs. An order in several
    payments counts for the largest. Raises UserError."""
    try:
        rows = pq.read_table(file).to_pandas()
    except OSError as error:
        raise UserError(f"{file}: {error}") from None
    rows = rows[rows["payment_type"] != "not_defined"]
    value = rows.groupby("order_id")["payment_value"].sum()
    largest = rows.loc[rows.groupby("order_id")["payment_value"].idxmax()]
    names = sorted(largest["payment_type"].unique())
    options = tuple(Option(name) for name in names)
    nowhere = EventContext()
    cents = np.round(value.loc[largest["order_id"]].to_numpy() * 100).astype(np.int64)
    return [
        Choice(options, names.index(kind), nowhere, int(amount), order, {})
        for order, kind, amount in zip(
            largest["order_id"], largest["payment_type"], cents.tolist(), strict=True
        )
    ]
