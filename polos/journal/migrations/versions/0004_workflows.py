"""Queues, schedules, triggers and waits for events; priorities, debouncing and forks of runs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ILLEGAL_RUN = (
    "status = 'queued' AND ring_at IS NULL AND (slot IS NULL OR slot NOT IN ('deferred', 'wanted'))"
    " OR status = 'queued' AND ring_at IS NOT NULL AND not_before IS NULL AND slot IN ('deferred', 'wanted')"
    " OR status = 'running' AND owner IS NULL"
    " OR status <> 'running' AND owner IS NOT NULL"
    " OR status IN ('cancelled', 'completed', 'failed') AND finished_at IS NULL"
    " OR status NOT IN ('cancelled', 'completed', 'failed') AND finished_at IS NOT NULL"
    " OR finished_at IS NOT NULL AND (ring_at IS NOT NULL OR slot = 'held')"
)
_ILLEGAL_STEP = (
    "status = 'scheduled' AND ring_at IS NULL"
    " OR status = 'running' AND kind = 'turn' AND owner IS NULL"
    " OR status = 'running' AND kind = 'timer' AND ring_at IS NULL"
)


def upgrade() -> None:
    """Add tables and columns; what is queued or under way needs no slot."""
    _add_columns()
    _add_indexes()
    _create_event_wait()
    _create_event_trigger()
    _create_schedule()
    _create_queue()
    _create_finding_and_lease()


def _add_columns() -> None:
    op.add_column("run", sa.Column("priority", sa.Integer(), nullable=False, server_default="5"))
    op.add_column("run", sa.Column("hops", sa.Integer(), nullable=False, server_default="0"))
    for name in ("slot", "debounce_key", "schedule_id", "forked_from"):
        op.add_column("run", sa.Column(name, sa.String(), nullable=True))
    op.execute("UPDATE run SET concurrency_key = '' WHERE concurrency_key IS NULL")
    op.add_column("run", sa.Column("retried_seq", sa.Integer(), nullable=True))
    op.add_column("event", sa.Column("hops", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deployment", sa.Column("admissions", sa.Integer(), nullable=False, server_default="0"))


def _partial(name: str, table: str, where: str, *columns: Any, unique: bool = False) -> None:
    op.create_index(
        name,
        table,
        list(columns),
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


def _add_indexes() -> None:
    deferred = ("project", "deployment", "route", "priority", "queue", "concurrency_key", "created_at")
    _partial("run_deferred", "run", "slot = 'deferred' AND ring_at IS NULL", *deferred)
    wanted = ("project", "deployment", "queue", "concurrency_key", sa.text("priority DESC"), "created_at")
    _partial("run_wanted", "run", "slot = 'wanted' AND ring_at IS NULL", *wanted)
    _partial("run_slots", "run", "slot = 'held'", "project", "deployment", "queue", "concurrency_key")
    rung = "status = 'queued' AND ring_at IS NOT NULL AND parent_id IS NULL AND not_before IS NULL"
    _partial("run_rung", "run", rung, "project", "deployment", "route")
    _partial("run_waiting", "run", "status = 'waiting'", "id")
    _partial("run_scheduled", "run", "schedule_id IS NOT NULL AND finished_at IS NULL", "schedule_id")
    debounced = ("project", "deployment", "name", "debounce_key")
    _partial("run_debounced", "run", "debounce_key IS NOT NULL", *debounced, unique=True)
    _partial("run_overdue", "run", "status = 'waiting' AND claimed_at IS NOT NULL", "claimed_at")
    _partial("run_illegal", "run", _ILLEGAL_RUN, "id")
    _partial("run_live_child", "run", "parent_id IS NOT NULL AND finished_at IS NULL", "parent_id")
    _partial("run_old", "run", "parent_id IS NULL AND finished_at IS NOT NULL", "finished_at")
    _partial("step_open", "step", "status IN ('running', 'scheduled')", "run_id")
    _partial("step_illegal", "step", _ILLEGAL_STEP, "run_id")
    op.create_index("event_created", "event", ["created_at"])
    _partial("event_answers", "event", "substr(type, 1, 7) = 'resume_'", "project", "topic", "type")
    _partial("step_waits", "step", "status = 'running' AND ring_at IS NOT NULL", "ring_at")


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
        sa.Column("declared_by", sa.String(), nullable=True),
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("batch_timeout_seconds", sa.Float(), nullable=True),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("last_run_id", sa.String(), nullable=True),
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
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("last_at", sa.Float(), nullable=True),
        sa.Column("last_run_id", sa.String(), nullable=True),
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
        sa.Column("declared", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", "name"),
    )


def _create_finding_and_lease() -> None:
    op.create_table(
        "finding",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=True),
        sa.Column("found_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "lease",
        sa.Column("duty", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("duty"),
    )


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
