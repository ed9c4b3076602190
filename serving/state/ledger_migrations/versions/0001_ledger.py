"""The ledger's first tables. A step that was released is never changed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "offer_uses",
        sa.Column("offer_id", sa.Text, primary_key=True),
        sa.Column("uses", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "holder_uses",
        sa.Column("holder", sa.Text, primary_key=True),
        sa.Column("uses", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "redemptions",
        sa.Column("redemption_id", sa.Text, primary_key=True),
        sa.Column("transaction_id", sa.Text, nullable=False, unique=True),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("redeemed_at", sa.BigInteger, nullable=False),
        sa.Column("rolled_back_at", sa.BigInteger),
    )
    op.create_table(
        "reservations",
        sa.Column("reservation_id", sa.Text, primary_key=True),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("offer_id", sa.Text, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("discount", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("cart_digest", sa.Text, nullable=False),
        sa.Column("offer_group", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reserved_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("redemption_id", sa.Text, sa.ForeignKey("redemptions.redemption_id")),
    )
    in_force = sa.text("state IN ('reserved', 'redeemed')")
    op.create_index(
        "one_in_force_for_each_token",
        "reservations",
        ["token_id"],
        unique=True,
        sqlite_where=in_force,
        postgresql_where=in_force,
    )
    op.create_index("reservations_by_end", "reservations", ["state", "expires_at"])
    op.create_index("reservations_by_redemption", "reservations", ["redemption_id"])
    op.create_index("reservations_by_holder", "reservations", ["holder"])
