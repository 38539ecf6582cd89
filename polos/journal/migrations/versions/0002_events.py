"""Numbered events: counters in runs and steps, topics, published events."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what streams are numbered by; a root that has ended gets its two events."""
    op.add_column("run", sa.Column("event_seq", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("run", sa.Column("started_event", sa.Integer(), nullable=True))
    op.add_column("run", sa.Column("ended_event", sa.Integer(), nullable=True))
    op.add_column("step", sa.Column("event", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE run SET started_event = 1, ended_event = 2, event_seq = 2 "
        "WHERE finished_at IS NOT NULL AND root_id = id"
    )
    op.create_table(
        "topic",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name"),
    )
    op.create_table(
        "event",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "topic", "number"),
    )


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
