"""The ledger's tables as SQLAlchemy knows them. What makes them in a database are the migrations
beside this file; a test compares the two.

Times are microseconds since 1970, money minor units, ids text.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()


def _text(name: str, *, unique: bool | None = None) -> Column[str]:
    return Column(name, Text, nullable=False, unique=unique)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


# Uses that count: reservations in force and redemptions that were not rolled back. The row of an
# offer is also what those who reserve it wait for, one after the other.
OFFER_USES = Table(
    "offer_uses",
    METADATA,
    Column("offer_id", Text, primary_key=True),
    _number("uses"),
    _number("spent"),
)

HOLDER_USES = Table(
    "holder_uses",
    METADATA,
    Column("holder", Text, primary_key=True),
    _number("uses"),
)

REDEMPTIONS = Table(
    "redemptions",
    METADATA,
    Column("redemption_id", Text, primary_key=True),
    _text("transaction_id", unique=True),
    _text("request_digest"),
    _text("currency"),
    _number("value"),
    _number("total"),
    _number("redeemed_at"),
    Column("rolled_back_at", BigInteger),
)

RESERVATIONS = Table(
    "reservations",
    METADATA,
    Column("reservation_id", Text, primary_key=True),
    _text("token_id"),
    _text("decision_id"),
    _text("offer_id"),
    Column("holder", Text),
    _text("discount"),
    _number("amount"),
    _text("currency"),
    _text("cart_digest"),
    Column("offer_group", Text),
    _text("state"),
    _number("reserved_at"),
    _number("expires_at"),
    Column("redemption_id", Text, ForeignKey("redemptions.redemption_id")),
    Column("external_code", Text),
    Column("budget_day", Text),
    Column("most_in_all", BigInteger),
)

# What was spent of each day's budget; its row is what those who spend of it wait for.
DAY_SPEND = Table(
    "day_spend",
    METADATA,
    Column("day", Text, primary_key=True),
    _number("spent"),
)

# When a shopper, under a name that only their own key can make, was shown an offer, once for each
# session.
SHOWN = Table(
    "shown",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("seat", Text, primary_key=True),
    _number("shown_at"),
)

# Decisions counted by the minutes, with what some of them were expected to bring and to cost.
PACING_SLOTS = Table(
    "pacing_slots",
    METADATA,
    Column("slot_id", Text, primary_key=True),
    _number("start_at"),
    _number("seen"),
    _text("body"),
)

# The price of spending that all gateways go by, by day.
PACING_PRICES = Table(
    "pacing_prices",
    METADATA,
    Column("day", Text, primary_key=True),
    _number("solved_at"),
    _text("body"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("message_id", Text, primary_key=True),
    _text("reservation_id"),
    _number("place"),
    _text("kind"),
    _text("body"),
    _number("made_at"),
    _number("next_at"),
    _number("attempts"),
    Column("done_at", BigInteger),
    Column("remote_id", Text),
    Column("problem", Text),
    UniqueConstraint("reservation_id", "place"),
)

_IN_FORCE = text("state IN ('reserved', 'redeemed')")
# Whatever else goes wrong, a token never counts twice.
Index(
    "one_in_force_for_each_token",
    RESERVATIONS.c.token_id,
    unique=True,
    sqlite_where=_IN_FORCE,
    postgresql_where=_IN_FORCE,
)
Index("reservations_by_end", RESERVATIONS.c.state, RESERVATIONS.c.expires_at)
Index("reservations_by_redemption", RESERVATIONS.c.redemption_id)
Index("reservations_by_holder", RESERVATIONS.c.holder)
Index("shown_by_time", SHOWN.c.shown_at)
Index("slots_by_time", PACING_SLOTS.c.start_at)
Index("outbox_by_time", OUTBOX.c.done_at, OUTBOX.c.next_at)
