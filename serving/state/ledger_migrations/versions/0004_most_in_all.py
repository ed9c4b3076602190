"""What a reserved offer may take off with others together."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what was reserved before says nothing."""
    op.add_column("reservations", sa.Column("most_in_all", sa.BigInteger))
