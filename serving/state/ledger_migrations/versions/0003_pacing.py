"""A budget for each day, how often shoppers are shown offers, and what the price is solved from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.add_column("reservations", sa.Column("budget_day", sa.Text))
    op.create_table(
        "day_spend",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("spent", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "shown",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seat", sa.Text, primary_key=True),
        sa.Column("shown_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "pacing_slots",
        sa.Column("slot_id", sa.Text, primary_key=True),
        sa.Column("start_at", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "pacing_prices",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("solved_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("shown_by_time", "shown", ["shown_at"])
    op.create_index("slots_by_time", "pacing_slots", ["start_at"])
