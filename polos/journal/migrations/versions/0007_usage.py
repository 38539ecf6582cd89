"""What model calls use and cost, by turn and run, and by day once runs are removed; limits of that."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and a table; turns that ended before have used nothing that is known."""
    for name in ("agent", "model"):
        op.add_column("step", sa.Column(name, sa.String(), nullable=True))
    _add_sums("step", "unpriced_calls", "uncounted_calls", "input_tokens", "output_tokens", "cached_tokens")
    _add_sums("run", "cached_tokens", "unpriced_calls")
    op.add_column("run", sa.Column("usage_limits", sa.Text(), nullable=True))
    _add_indexes()
    op.create_table(
        "usage_day",
        *(sa.Column(name, sa.String(), nullable=False) for name in ("project", "day", "agent", "model")),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("unpriced_calls", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("project", "day", "agent", "model"),
    )


def _add_sums(table: str, *names: str) -> None:
    for name in ("calls", *names):
        op.add_column(table, sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column(table, sa.Column("cost", sa.Float(), nullable=True))


def _add_indexes() -> None:
    for name, table, where, columns in (
        ("run_session", "run", "kind = 'agent' AND session_id IS NOT NULL", ["project", "session_id"]),
        ("step_called", "step", "kind = 'turn' AND finished_at IS NOT NULL", ["finished_at"]),
    ):
        op.create_index(
            name, table, columns, unique=False, postgresql_where=sa.text(where), sqlite_where=sa.text(where)
        )


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
