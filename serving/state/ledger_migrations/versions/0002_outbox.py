"""Coupons that an outside system has to hear of, and what it is still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the outbox."""
    op.add_column("reservations", sa.Column("external_code", sa.Text))
    op.create_table(
        "outbox",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("reservation_id", sa.Text, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("done_at", sa.BigInteger),
        sa.Column("remote_id", sa.Text),
        sa.Column("problem", sa.Text),
        sa.UniqueConstraint("reservation_id", "place"),
    )
    op.create_index("outbox_by_time", "outbox", ["done_at", "next_at"])
