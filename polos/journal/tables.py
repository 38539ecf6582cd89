"""The tables of the journal, nothing else.

Times are seconds since the epoch by the database's clock. Values are JSON text made by one codec.
"""

from typing import Any

from sqlalchemy import BigInteger, Index, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from polos.journal.sealing import Sealed

_DEFERRED_LANE = ("project", "deployment", "route", "priority", "queue", "concurrency_key")
_WANTED_LANE = ("project", "deployment", "queue", "concurrency_key")
# States of one row that nothing would ever move; their indexes are empty unless something went wrong.
ILLEGAL_RUN = (
    "status = 'queued' AND ring_at IS NULL AND (slot IS NULL OR slot NOT IN ('deferred', 'wanted'))"
    " OR status = 'queued' AND ring_at IS NOT NULL AND not_before IS NULL AND slot IN ('deferred', 'wanted')"
    " OR status = 'running' AND owner IS NULL"
    " OR status <> 'running' AND owner IS NOT NULL"
    " OR status IN ('cancelled', 'completed', 'failed') AND finished_at IS NULL"
    " OR status NOT IN ('cancelled', 'completed', 'failed') AND finished_at IS NOT NULL"
    " OR finished_at IS NOT NULL AND (ring_at IS NOT NULL OR slot = 'held')"
)
ILLEGAL_STEP = (
    "status = 'scheduled' AND ring_at IS NULL"
    " OR status = 'running' AND kind = 'turn' AND owner IS NULL"
    " OR status = 'running' AND kind = 'timer' AND ring_at IS NULL"
)
CALLED_STEP = "kind = 'turn' AND finished_at IS NOT NULL"
OPEN_STEP = "status IN ('running', 'scheduled')"


def _partial(name: str, where: str, *columns: str, unique: bool = False) -> Index:
    """Return an index over the rows of which `where` is true."""
    return Index(name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where))


def _zero() -> Any:
    """Return a counter that the database begins: INSERTs need not name it."""
    return Field(default=0, sa_column_kwargs={"default": None, "server_default": "0"})


class JournalTable(SQLModel, registry=registry()):
    """Base of our tables: a registry of their own, so that a program's SQLModel tables never mix in."""


class Run(JournalTable, table=True):
    """One execution of a workflow, agent or tool."""

    __tablename__ = "run"

    id: str = Field(primary_key=True)
    project: str
    deployment: str
    kind: str
    name: str
    caller: str | None = None  # name of the parent's definition: a tool is looked up in its agent first
    status: str
    attempt: int = 0  # the run fence: grows by one with every claim
    event_seq: int = 0  # of a root: counts the numbered events of its tree
    started_event: int | None = None  # number of the event of a root's start
    ended_event: int | None = None  # number of the event of its end, in its tree
    seq: int = 0  # counts all outcomes of the run
    wakes: int = 0  # counts what others completed for the run
    owner: str | None = None  # worker that executes or keeps it
    parent_id: str | None = None
    parent_step: str | None = None  # the parent's step that created it
    awaited: int = 0  # 1: the parent's step gets this run's outcome
    root_id: str
    root_name: str
    depth: int = 0
    session_id: str | None = None
    user_id: str | None = None
    queue: str
    route: str
    concurrency_key: str | None = ""  # empty: none
    priority: int = 5  # 0 to 9, higher first
    slot: str | None = None  # a `QueueSlot`; None: needs none
    idempotency_key: str | None = None
    debounce_key: str | None = None  # until it is claimed: a later call with the key replaces its input
    schedule_id: str | None = None  # the schedule whose tick it is
    hops: int = 0  # event triggers that lie between it and whoever published first
    forked_from: str | None = None  # the run whose journal it began with a copy of
    retried_seq: int | None = None  # retried by a person: failed outcomes up to here may be taken back
    input: str | None = Field(default=None, sa_type=Sealed)
    initial_state: str | None = Field(default=None, sa_type=Sealed)
    final_state: str | None = Field(default=None, sa_type=Sealed)
    output: str | None = Field(default=None, sa_type=Sealed)
    output_schema: str | None = None
    error: str | None = Field(default=None, sa_type=Sealed)
    cancelled_by: str | None = None
    run_timeout_seconds: float | None = None
    running_seconds: float = 0.0  # spent executing by earlier attempts
    claimed_at: float | None = None  # start of the attempt under way
    crashes: int = 0  # owners lost while user code ran, since the last recorded outcome
    retries: int = 0  # failed attempts
    not_before: float | None = None  # back-off: no claim earlier
    ring_at: float | None = None  # when the sweeper rings next, unless claimed
    rings: int = 0  # doorbells rung by the sweeper since it became queued
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = _zero()  # of the input, read from the provider's cache
    calls: int = _zero()  # model calls of its own turns; these sums are set when it ends
    unpriced_calls: int = _zero()  # of those, how many nobody knows the price of
    cost: float | None = None  # US dollars of the others
    usage_limits: str | None = Field(default=None, sa_type=Text)  # JSON: what runs above it are limited to
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None

    __table_args__ = (
        _partial("run_due", "ring_at IS NOT NULL", "ring_at"),
        _partial("run_owner", "owner IS NOT NULL", "owner"),
        _partial("run_parent", "parent_id IS NOT NULL", "parent_id"),
        Index("run_root", "root_id"),
        Index("run_recent", "project", "created_at"),
        _partial("run_session", "kind = 'agent' AND session_id IS NOT NULL", "project", "session_id"),
        Index("run_once", "project", "idempotency_key", unique=True),
        _partial("run_deferred", "slot = 'deferred' AND ring_at IS NULL", *_DEFERRED_LANE, "created_at"),
        Index(
            "run_wanted",
            *_WANTED_LANE,
            text("priority DESC"),
            "created_at",
            postgresql_where=text("slot = 'wanted' AND ring_at IS NULL"),
            sqlite_where=text("slot = 'wanted' AND ring_at IS NULL"),
        ),
        _partial("run_slots", "slot = 'held'", "project", "deployment", "queue", "concurrency_key"),
        _partial(
            "run_rung",
            "status = 'queued' AND ring_at IS NOT NULL AND parent_id IS NULL AND not_before IS NULL",
            "project",
            "deployment",
            "route",
        ),
        _partial("run_waiting", "status = 'waiting'", "id"),
        _partial("run_overdue", "status = 'waiting' AND claimed_at IS NOT NULL", "claimed_at"),
        _partial("run_illegal", ILLEGAL_RUN, "id"),
        _partial("run_live_child", "parent_id IS NOT NULL AND finished_at IS NULL", "parent_id"),
        _partial("run_live_session", "finished_at IS NULL", "project", "session_id"),
        _partial("run_old", "parent_id IS NULL AND finished_at IS NOT NULL", "finished_at"),
        _partial("run_scheduled", "schedule_id IS NOT NULL AND finished_at IS NULL", "schedule_id"),
        _partial(
            "run_debounced",
            "debounce_key IS NOT NULL",
            "project",
            "deployment",
            "name",
            "debounce_key",
            unique=True,
        ),
        {"postgresql_with": {"fillfactor": "80"}},  # counters change often and are in no index: HOT updates
    )


class Step(JournalTable, table=True):
    """One durable unit inside a run. A row without outcome (`seq` null) is under way."""

    __tablename__ = "step"

    run_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    kind: str
    position: int = 0  # order of first recording; information, never a check
    seq: int | None = None  # the run's `seq` at which the outcome became true
    status: str
    attempt: int = 0  # the step fence, raised by whoever executes it
    owner: str | None = None
    tries: int = 0
    crashes: int = 0  # owners lost while executing it
    input: str | None = Field(default=None, sa_type=Sealed)
    output: str | None = Field(default=None, sa_type=Sealed)
    output_schema: str | None = None
    error: str | None = Field(default=None, sa_type=Sealed)
    failures: str | None = Field(default=None, sa_type=Sealed)  # JSON list of failed attempts
    child_id: str | None = None
    event: int | None = None  # number, in the tree, of the event of a turn's end
    ticket: float | None = None  # of a turn that waits for a model: its moment, in the time of the allowance
    not_before: float | None = None
    ring_at: float | None = None
    rings: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    agent: str | None = None  # of a turn: who spoke
    model: str | None = None  # "provider/model" of its last attempt
    calls: int = _zero()  # model calls in the sums below: its attempts
    unpriced_calls: int = _zero()
    uncounted_calls: int = (
        _zero()
    )  # begun and not in the sums; whoever ends an attempt counts what came before
    input_tokens: int = _zero()
    output_tokens: int = _zero()
    cached_tokens: int = _zero()
    cost: float | None = None  # US dollars, of the calls that have a price

    __table_args__ = (
        _partial("step_called", CALLED_STEP, "finished_at"),
        _partial("step_due", "ring_at IS NOT NULL", "ring_at"),
        _partial("step_owner", "status = 'running'", "owner"),
        _partial("step_open", OPEN_STEP, "run_id"),
        _partial("step_illegal", ILLEGAL_STEP, "run_id"),
        _partial("step_waits", "status = 'running' AND ring_at IS NOT NULL", "ring_at"),
        {"postgresql_with": {"fillfactor": "80"}},
    )


class Session(JournalTable, table=True):
    """What an agent remembers of a session: how much there is. Locked last, to number messages."""

    __tablename__ = "session"

    project: str = Field(primary_key=True)
    session_id: str = Field(primary_key=True)
    agent: str = Field(primary_key=True)
    generation: str  # another one when what was remembered is deleted
    last_message: int = 0  # number of the last one
    last_summary: int = 0
    summary: int | None = None  # number of the one that is loaded
    loads_after: int = 0  # messages up to here are not loaded: a summary stands for them, or they are deleted
    deleted_messages: int = 0  # up to this number they go, once no run that may have loaded them is live
    deleted_summaries: int = 0
    deleted_at: float | None = None  # until they are gone
    created_at: float
    used_at: float

    __table_args__ = (
        Index("session_used", "used_at"),
        _partial("session_deleted", "deleted_at IS NOT NULL", "deleted_at"),
    )


class SessionMessage(JournalTable, table=True):
    """One item of what was said in a session. Rows never change."""

    __tablename__ = "session_message"

    project: str = Field(primary_key=True)
    session_id: str = Field(primary_key=True)
    agent: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    run_id: str | None = None  # None: written by a program
    place: int  # among those of its run, from 0
    item: str = Field(sa_type=Sealed)
    tokens: int  # about so many
    created_at: float

    __table_args__ = (_partial("session_message_run", "run_id IS NOT NULL", "run_id", "place", unique=True),)


class SessionSummary(JournalTable, table=True):
    """A text that stands for a range of messages. Rows never change."""

    __tablename__ = "session_summary"

    project: str = Field(primary_key=True)
    session_id: str = Field(primary_key=True)
    agent: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    run_id: str | None = None
    text: str = Field(sa_type=Sealed)
    tokens: int
    first_message: int
    last_message: int
    created_at: float


class Topic(JournalTable, table=True):
    """A topic that programs publish to. Topics of run trees are counted in the root's row instead."""

    __tablename__ = "topic"

    project: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    event_seq: int = 0


class Event(JournalTable, table=True):
    """What a program published, numbered per topic without holes in the order of commits."""

    __tablename__ = "event"

    project: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    type: str | None = None
    data: str = Field(sa_type=Sealed)
    run_id: str | None = None  # the run that published it
    hops: int = 0  # event triggers that lie between it and whoever published first
    created_at: float

    __table_args__ = (
        Index("event_created", "created_at"),
        _partial("event_answers", "substr(type, 1, 7) = 'resume_'", "project", "topic", "type"),
    )


class EventWait(JournalTable, table=True):
    """A step that waits for an event of a topic; deleted in the transaction that ends the wait."""

    __tablename__ = "event_wait"

    run_id: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    project: str
    topic: str
    type: str | None = None  # None: any
    after: int  # number of the last event that does not count
    number: int | None = None  # of the event that came; set by whoever publishes it, in that transaction

    __table_args__ = (
        _partial("event_wait_open", "number IS NULL", "project", "topic"),
        _partial("event_wait_met", "number IS NOT NULL", "run_id"),
    )


class Trigger(JournalTable, table=True):
    """A workflow that a topic's events start, and how far it has read the topic."""

    __tablename__ = "event_trigger"

    project: str = Field(primary_key=True)
    workflow: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    declared_by: str | None = None  # deployment whose code declares it; None: made over HTTP
    deployment: str  # the newest that declares or offers it; its runs go there
    kind: str
    queue: str
    route: str
    batch_size: int
    batch_timeout_seconds: float | None = None
    cursor: int  # number of the last event a run was started for
    last_run_id: str | None = None  # with the cursor: who moves it knows by this that it was them
    is_active: int = 1
    created_at: float

    __table_args__ = (Index("event_trigger_topic", "project", "topic"),)


class Schedule(JournalTable, table=True):
    """A workflow that starts by the clock. One row per (workflow, key)."""

    __tablename__ = "schedule"

    id: str = Field(primary_key=True)
    project: str
    workflow: str
    key: str
    cron: str
    timezone: str
    status: str  # "active", "paused" by a person, or "inactive": no longer declared
    catch_up: str  # which of the ticks that were missed are made up for: "skip", "one" or "all"
    declared_by: str | None = None  # deployment whose code declares it; None: made by a program
    deployment: str  # the newest that offers the workflow; its runs go there
    kind: str
    route: str
    next_at: float | None = None  # the next tick; None: there is none
    last_at: float | None = None  # the last tick a run was started for
    last_run_id: str | None = None
    created_at: float
    updated_at: float

    __table_args__ = (
        Index("schedule_once", "project", "workflow", "key", unique=True),
        _partial("schedule_due", "status = 'active'", "next_at"),
    )


class QueueLimits(JournalTable, table=True):
    """A queue with limits. A queue without a row has none."""

    __tablename__ = "queue"

    project: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    concurrency_limit: int | None = None  # of runs with one concurrency key
    rate_limit: int | None = None  # runs begun in `rate_seconds`
    rate_seconds: float | None = None
    next_at: float | None = None  # earliest time of the next admission, under a rate limit
    hold_while_waiting: int = 0  # 1: a run keeps its slot while it waits
    is_paused: int = 0
    declared: str | None = None  # the limits that code declared last; a person's stand until code changes
    created_at: float


class StoredAllowance(JournalTable, table=True):
    """What may be asked of one model with one key, while Redis is away. See `polos.allowances`."""

    __tablename__ = "allowance"

    project: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    version: int = 0  # changes with every write: who reads it writes only if it is the same still
    gate: float
    tail: float
    lag: float
    paused: float


class Finding(JournalTable, table=True):
    """A kind of state that nothing would have moved: how often sweepers found it, and where last."""

    __tablename__ = "finding"

    name: str = Field(primary_key=True)
    count: int
    run_id: str
    step: str | None = None
    found_at: float


class Lease(JournalTable, table=True):
    """A duty that one sweeper at a time does."""

    __tablename__ = "lease"

    duty: str = Field(primary_key=True)
    holder: str
    until: float


class Worker(JournalTable, table=True):
    """One process that executes runs. Its row goes when it ends or is declared dead."""

    __tablename__ = "worker"

    id: str = Field(primary_key=True)
    hostname: str
    pid: int
    project: str
    deployment: str
    kind: str  # "celery" or "embedded"
    routes: str  # comma separated
    concurrency: int
    lock_key: int  # of its advisory lock on PostgreSQL
    draining: int = 0
    started_at: float
    beat_at: float


class Definition(JournalTable, table=True):
    """A workflow, agent or tool that a worker offers."""

    __tablename__ = "definition"

    worker_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    details: str | None = Field(default=None, sa_type=Text)  # JSON: what lists of definitions show


class Deployment(JournalTable, table=True):
    """A version label of the code. The newest is the one first seen last."""

    __tablename__ = "deployment"

    project: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    admissions: int = 0  # the fence of whoever admits runs: changes with every admission
    first_seen_at: float


class StandingApproval(JournalTable, table=True):
    """A tool call that a person allowed for the rest of its session."""

    __tablename__ = "standing_approval"

    id: str = Field(primary_key=True)  # digest of project, session, agent, tool and arguments
    project: str
    session_id: str
    agent: str  # name of the definition that calls the tool; empty: none
    tool: str
    arguments: str = Field(sa_type=Sealed)  # JSON text with sorted keys
    run_id: str  # the tool's run that was answered so
    answered_by: str | None = None
    created_at: float

    __table_args__ = (
        Index("standing_approval_recent", "project", "created_at"),
        Index("standing_approval_old", "created_at"),
    )


class UsageDay(JournalTable, table=True):
    """What model calls used on one day, of runs that retention has removed."""

    __tablename__ = "usage_day"

    project: str = Field(primary_key=True)
    day: str = Field(primary_key=True)  # of the turns' ends, in UTC: "2025-03-01"
    agent: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    calls: int
    unpriced_calls: int
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    cost: float | None = None


class ApiKey(JournalTable, table=True):
    """A key of the HTTP API. Only its digest is kept: the key itself is shown once, when it is made."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    project: str
    name: str
    digest: str  # SHA-256, in hex
    last_four_digits: str
    is_admin: int = 0  # 1: may manage the keys of its project
    created_at: float
    last_used_at: float | None = None  # to the minute
    revoked_at: float | None = None

    __table_args__ = (
        Index("api_key_digest", "digest", unique=True),
        Index("api_key_project", "project", "created_at"),
    )


SEALED_COLUMNS = {
    table.name: frozenset(column.name for column in table.c if isinstance(column.type, Sealed))
    for table in JournalTable.metadata.tables.values()
}
