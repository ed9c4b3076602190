"""MineThatData's e-mail experiment (Hillstrom, 2008): 64,000 shoppers, three arms at random."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from contract.errors import UserError
from training.data.offer_log import OfferLog
from training.data.storage import read_parquet

_ARMS = {"No E-Mail": "none", "Mens E-Mail": "mens", "Womens E-Mail": "womens"}
_NUMBERS = ("recency", "history", "mens", "womens", "newbie")
_NAMES = ("zip_code", "channel")
COLUMNS = (*_NUMBERS, *_NAMES, "segment", "visit", "spend")


def read_hillstrom(path: Path, outcome: str = "visit") -> OfferLog:
    """The experiment in the Parquet file `path`, spend in cents.

    A third got each arm, so that is every propensity. `history_segment` is left out: it is
    `history` in steps. Raises UserError where a column or an arm is not as expected.
    """
    table = read_parquet(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}")
    told = table["segment"].to_pylist()
    unknown = sorted(set(told) - set(_ARMS))
    if unknown:
        raise UserError(f"{path}: segment {unknown[0]!r} is none of {', '.join(_ARMS)}")
    names, columns = list(_NUMBERS), [_numbers(table, name) for name in _NUMBERS]
    columns[1] = np.log1p(columns[1])
    for name in _NAMES:
        text = np.array(table[name].to_pylist(), str)
        for value in sorted(set(text.tolist())):
            names.append(f"{name}={value}")
            columns.append((text == value).astype(np.float64))
    size, arms = len(table), tuple(_ARMS.values())
    return OfferLog(
        arms=arms,
        features=np.stack(columns, axis=1).astype(np.float32),
        feature_names=tuple(names),
        subject=np.arange(size),
        decided_us=np.zeros(size, np.int64),
        arm=np.array([arms.index(_ARMS[name]) for name in told]),
        propensity=np.full((size, len(arms)), 1.0 / len(arms)),
        outcome=_numbers(table, outcome),
        spend=100.0 * _numbers(table, "spend"),
        value=np.ones(size),
        margin=np.ones(size),
        reduction=np.zeros((size, len(arms))),
    )


def _numbers(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(table[name].to_numpy(), np.float64)
