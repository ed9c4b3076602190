"""From the facts of the rollup to one row of figures for each unit of an experiment."""

import sqlite3
from dataclasses import dataclass

import numpy as np

from serving.experiments.moments import Floats, Moments
from serving.experiments.statistics import COLUMNS
from serving.monitoring.kpis import UNRIPE_US

_DAY_US = 86_400_000_000
_COUNTS_US = _DAY_US  # an order counts for a checkout of its session, or within a day of it
_BEFORE_US = 28 * _DAY_US

_TABLES = """
CREATE TEMP TABLE unit (subject PRIMARY KEY, variant, first_us, device, country) WITHOUT ROWID;
CREATE TEMP TABLE worth (subject, transaction_id, session, at_us, revenue, margin,
    PRIMARY KEY (subject, transaction_id)) WITHOUT ROWID;
"""
_FILL_UNIT = """
INSERT INTO unit SELECT subject, variant, first_us, device, country FROM exposures
    WHERE experiment = :key AND NOT mixed
"""
# Of an order, what it is worth after refunds, NULL where nobody said; one that was refunded whole,
# as it is by a refund without an amount, is none.
_FILL_WORTH = """
INSERT INTO worth SELECT o.subject, o.transaction_id, o.session, o.at_us,
        o.revenue - coalesce(r.amount, 0),
        CASE WHEN o.revenue > 0
            THEN o.margin * (o.revenue - coalesce(r.amount, 0)) / o.revenue ELSE o.margin END
    FROM orders o JOIN unit USING (subject) LEFT JOIN (
        SELECT subject, transaction_id, sum(amount) AS amount, max(amount IS NULL) AS whole
        FROM refunds GROUP BY 1, 2) r
    ON r.subject = o.subject AND r.transaction_id = o.transaction_id
    WHERE r.subject IS NULL
        OR NOT r.whole AND (o.revenue IS NULL OR r.amount < max(o.revenue, 1))
"""
_ROWS = """
WITH later AS (
    SELECT unit.subject, count(*) AS orders, count(revenue) AS valued, sum(revenue) AS revenue,
        sum(margin) AS margin,
        sum(margin IS NULL) AS unknown
    FROM unit JOIN worth USING (subject)
    WHERE at_us >= first_us AND at_us < :until GROUP BY 1),
earlier AS (
    SELECT unit.subject, count(*) AS orders, count(revenue) AS valued, sum(revenue) AS revenue
    FROM unit JOIN worth USING (subject)
    WHERE at_us < first_us AND at_us >= first_us - :before GROUP BY 1),
visit AS (
    SELECT c.subject, c.session, EXISTS (
        SELECT 1 FROM worth o WHERE o.subject = c.subject AND o.at_us >= c.at_us AND
            (o.session = c.session OR o.at_us < c.last_us + :counts)) AS ordered
    FROM checkouts c JOIN unit USING (subject)
    WHERE c.last_us >= unit.first_us AND c.at_us < :until AND c.at_us <= :ripe),
visits AS (
    SELECT subject, count(*) AS checkouts, sum(NOT ordered) AS abandoned FROM visit GROUP BY 1),
suggested AS (
    SELECT v.subject, count(*) AS shown, sum(EXISTS (
        SELECT 1 FROM bought b JOIN worth o USING (subject, transaction_id), checkouts c
        WHERE b.subject = v.subject AND b.item = s.item AND c.subject = v.subject
            AND c.session = v.session AND o.at_us >= c.at_us
            AND (o.session = c.session OR o.at_us < c.last_us + :counts))) AS taken
    FROM visit v JOIN shown s USING (subject, session) GROUP BY 1)
SELECT unit.variant, unit.device, unit.country, coalesce(later.unknown, 0),
    later.orders > 0, later.orders, later.valued, later.revenue, later.margin,
    visits.checkouts, visits.abandoned, suggested.shown, suggested.taken,
    earlier.orders > 0, earlier.orders, earlier.valued, earlier.revenue
FROM unit LEFT JOIN later USING (subject) LEFT JOIN earlier USING (subject)
    LEFT JOIN visits USING (subject) LEFT JOIN suggested USING (subject)
"""
_FIGURES = (
    *("buyers", "orders", "valued", "revenue", "margin"),
    *("checkouts", "abandoned", "shown", "taken"),
    *("buyers_before", "orders_before", "valued_before", "revenue_before"),
)
assert _FIGURES == COLUMNS


@dataclass(frozen=True)
class Units:
    """Everybody who is in an experiment once: `variants` and cuts [units] and `rows` [units, K] of
    COLUMNS; `mixed` have met several variants and are left out."""

    variants: list[str]
    cuts: dict[str, list[str | None]]
    rows: Floats
    mixed: int
    orders_without_cost: int

    def moments(self, variant: str, cut: str | None = None, value: str | None = None) -> Moments:
        """Of those in `variant` and, if a `cut` is named, of that value in it."""
        chosen = np.array([one == variant for one in self.variants], dtype=bool)
        if cut is not None:
            chosen &= np.array([one == value for one in self.cuts[cut]], dtype=bool)
        return Moments.of(COLUMNS, self.rows[chosen])


def units_of(file: sqlite3.Connection, key: str) -> Units:
    """The units of the experiment `key`. Behaviour counts from the first exposure until a day after
    the last one of anybody, so that nothing is added once it has ended. A checkout that began in
    the last half hour of what was read may still become an order, and is not counted yet."""
    (last,) = file.execute(
        "SELECT max(last_us) FROM exposures WHERE experiment = ?", (key,)
    ).fetchone()
    (mixed,) = file.execute(
        "SELECT count(*) FROM exposures WHERE experiment = ? AND mixed", (key,)
    ).fetchone()
    (latest,) = file.execute("SELECT max(latest_us) FROM kpi_latest").fetchone()
    asked = {
        "ripe": (latest or 0) - UNRIPE_US,
        "until": (last or 0) + _DAY_US,
        "before": _BEFORE_US,
        "counts": _COUNTS_US,
    }
    # Tables of their own, for their keys: without them every unit would be compared with every one.
    file.executescript("DROP TABLE IF EXISTS temp.unit; DROP TABLE IF EXISTS temp.worth;" + _TABLES)
    file.execute(_FILL_UNIT, {"key": key})
    file.execute(_FILL_WORTH)
    found = file.execute(_ROWS, asked).fetchall()
    rows = np.array([row[4:] for row in found], dtype=np.float64).reshape(-1, len(COLUMNS))
    rows = np.nan_to_num(rows)  # of who never came back there are no sums
    known = rows[:, COLUMNS.index("buyers_before")] > 0
    return Units(
        variants=[row[0] for row in found],
        # All of them are known before a variant could change them.
        cuts={
            "device": [row[1] for row in found],
            "country": [row[2] for row in found],
            "bought_before": ["yes" if one else "no" for one in known],
        },
        rows=rows,
        mixed=int(mixed),
        orders_without_cost=int(sum(row[3] for row in found)),
    )
