"""Queues, schedules, triggers and waits for events; priorities, debouncing and forks of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns; what is queued or under way needs no slot."""
    _add_columns()
    _add_indexes_of_runs()
    _create_event_wait()
    _create_event_trigger()
    _create_schedule()
    _create_queue()


def _add_columns() -> None:
    op.add_column("run", sa.Column("priority", sa.Integer(), nullable=False, server_default="5"))
    op.add_column("run", sa.Column("hops", sa.Integer(), nullable=False, server_default="0"))
    for name in ("slot", "debounce_key", "schedule_id", "forked_from"):
        op.add_column("run", sa.Column(name, sa.String(), nullable=True))
    op.add_column("event", sa.Column("hops", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deployment", sa.Column("admissions", sa.Integer(), nullable=False, server_default="0"))


def _partial(name: str, table: str, where: str, *columns: str, unique: bool = False) -> None:
    op.create_index(
        name,
        table,
        list(columns),
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


def _add_indexes_of_runs() -> None:
    lane = ("project", "deployment", "route", "queue", "concurrency_key")
    _partial("run_pending", "run", "slot IN ('deferred', 'wanted')", *lane, "priority", "created_at")
    _partial("run_slots", "run", "slot = 'held'", "project", "deployment", "queue", "concurrency_key")
    rung = "status = 'queued' AND ring_at IS NOT NULL AND parent_id IS NULL"
    _partial("run_rung", "run", rung, "deployment", "route")
    _partial("run_waiting", "run", "status = 'waiting'", "id")
    _partial("run_scheduled", "run", "schedule_id IS NOT NULL AND finished_at IS NULL", "schedule_id")
    debounced = ("project", "deployment", "name", "debounce_key")
    _partial("run_debounced", "run", "debounce_key IS NOT NULL", *debounced, unique=True)


def _create_event_wait() -> None:
    op.create_table(
        "event_wait",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=True),
        sa.Column("after", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "step"),
    )
    _partial("event_wait_open", "event_wait", "number IS NULL", "project", "topic")
    _partial("event_wait_met", "event_wait", "number IS NOT NULL", "run_id")


def _create_event_trigger() -> None:
    op.create_table(
        "event_trigger",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("batch_timeout_seconds", sa.Float(), nullable=True),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "workflow", "topic"),
    )
    op.create_index("event_trigger_topic", "event_trigger", ["project", "topic"], unique=False)


def _create_schedule() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("catch_up", sa.String(), nullable=False),
        sa.Column("declared_by", sa.String(), nullable=True),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("last_at", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("schedule_once", "schedule", ["project", "workflow", "key"], unique=True)
    _partial("schedule_due", "schedule", "status = 'active'", "next_at")


def _create_queue() -> None:
    op.create_table(
        "queue",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("rate_limit", sa.Integer(), nullable=True),
        sa.Column("rate_seconds", sa.Float(), nullable=True),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("hold_while_waiting", sa.Integer(), nullable=False),
        sa.Column("is_paused", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", "name"),
    )


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
