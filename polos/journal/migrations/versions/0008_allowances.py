"""Limits of model calls: a ticket on turns that wait, and allowances for the time without Redis."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column that older workers leave empty, and a table they do not know."""
    op.add_column("step", sa.Column("ticket", sa.Float(), nullable=True))
    op.create_table(
        "allowance",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("gate", sa.Float(), nullable=False),
        sa.Column("tail", sa.Float(), nullable=False),
        sa.Column("lag", sa.Float(), nullable=False),
        sa.Column("paused", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name"),
    )


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
