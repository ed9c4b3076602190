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

# Uses that count: reservations in force and redemptions that were not rolled back. The row of an
# offer is also what those who reserve it wait for, one after the other.
OFFER_USES = Table(
    "offer_uses",
    METADATA,
    Column("offer_id", Text, primary_key=True),
    Column("uses", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
)

HOLDER_USES = Table(
    "holder_uses",
    METADATA,
    Column("holder", Text, primary_key=True),
    Column("uses", BigInteger, nullable=False),
)

REDEMPTIONS = Table(
    "redemptions",
    METADATA,
    Column("redemption_id", Text, primary_key=True),
    Column("transaction_id", Text, nullable=False, unique=True),
    Column("request_digest", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("value", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("redeemed_at", BigInteger, nullable=False),
    Column("rolled_back_at", BigInteger),
)

RESERVATIONS = Table(
    "reservations",
    METADATA,
    Column("reservation_id", Text, primary_key=True),
    Column("token_id", Text, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("holder", Text),
    Column("discount", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("cart_digest", Text, nullable=False),
    Column("offer_group", Text),
    Column("state", Text, nullable=False),
    Column("reserved_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("redemption_id", Text, ForeignKey("redemptions.redemption_id")),
    Column("external_code", Text),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("message_id", Text, primary_key=True),
    Column("reservation_id", Text, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
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
Index("outbox_by_time", OUTBOX.c.done_at, OUTBOX.c.next_at)
