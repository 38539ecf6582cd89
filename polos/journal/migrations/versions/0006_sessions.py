"""What agents remember of sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEY = ("project", "session_id", "agent")


def upgrade() -> None:
    """Add three tables, and an index over the runs of a session that have not ended."""
    op.create_table(
        "session",
        *_key(),
        sa.Column("generation", sa.String(), nullable=False),
        sa.Column("last_message", sa.Integer(), nullable=False),
        sa.Column("last_summary", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Integer(), nullable=True),
        sa.Column("loads_after", sa.Integer(), nullable=False),
        sa.Column("deleted_messages", sa.Integer(), nullable=False),
        sa.Column("deleted_summaries", sa.Integer(), nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(*KEY),
    )
    op.create_index("session_used", "session", ["used_at"], unique=False)
    _partial("session_deleted", "session", "deleted_at IS NOT NULL", "deleted_at")
    op.create_table(
        "session_message",
        *_key(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(*KEY, "number"),
    )
    _partial("session_message_run", "session_message", "run_id IS NOT NULL", "run_id", "place", unique=True)
    op.create_table(
        "session_summary",
        *_key(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("first_message", sa.Integer(), nullable=False),
        sa.Column("last_message", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(*KEY, "number"),
    )
    _partial("run_live_session", "run", "finished_at IS NULL", "project", "session_id")


def _key() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in KEY]


def _partial(name: str, table: str, where: str, *columns: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        table,
        list(columns),
        unique=unique,
        postgresql_where=condition,
        sqlite_where=condition,
    )


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
