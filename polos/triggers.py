"""Starting what events trigger: which runs a trigger's unread events make, and when a batch is complete."""

from __future__ import annotations

import functools
import json
import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

from polos import serialization
from polos.dispatch import Doorbell
from polos.journal.runs import NewRun
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.triggers import (
    MAX_EVENTS,
    READ_DUE_TRIGGERS,
    READ_DUE_TRIGGERS_OF_TOPIC,
    READ_STARTED,
    READ_UNREAD,
    DueTrigger,
    TriggeredRun,
    due_trigger,
    fire_trigger,
)
from polos.journal.workers import READ_OFFERS
from polos.records import api_time
from polos.settings import Settings

logger = logging.getLogger("polos.triggers")

MAX_TRANSACTIONS = 20  # of one trigger in one look; more wait for the next


class Journal(Protocol):
    """A connection to the journal."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


@dataclass(frozen=True)
class Fired:
    """What came of a look.

    Attributes:
        bells: Doorbells to ring.
        pending: Runs that wait to be admitted instead, with their ``slot``.
        again_seconds: After which to look again; None for no wish.
    """

    bells: list[Doorbell] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)
    again_seconds: float | None = None


@dataclass(frozen=True)
class _Unread:
    """An event that a trigger has not read; `data` is JSON text."""

    number: int
    type: str | None
    data: str
    created_at: float
    hops: int


def fire_triggers(
    journal: Journal,
    settings: Settings,
    place: tuple[str, str] | None = None,
    *,
    max_transactions: int = MAX_TRANSACTIONS,
) -> Fired:
    """Start runs whose events are there, of the topic at `place` (project, topic) or of all.

    `max_transactions` is for each trigger; what is more is left to the next look.
    """
    if place is None:
        rows = journal.read(READ_DUE_TRIGGERS, {})
    else:
        rows = journal.read(READ_DUE_TRIGGERS_OF_TOPIC, {"project": place[0], "topic": place[1]})
    fired = Fired()
    waits = [_Firing(journal, settings, due, fired).go(max_transactions) for due in map(due_trigger, rows)]
    return replace(fired, again_seconds=min((wait for wait in waits if wait is not None), default=None))


class _Firing:
    """One trigger's unread events, in transactions of a bounded size."""

    def __init__(self, journal: Journal, settings: Settings, due: DueTrigger, fired: Fired) -> None:
        self._journal = journal
        self._settings = settings
        self._due = due
        self._fired = fired
        self._cursor = due.cursor

    def go(self, max_transactions: int) -> float | None:
        """Start runs and say so; return after how many seconds to look again, if known."""
        for _ in range(max_transactions):
            unread = self._unread()
            if not unread:
                self._move_on([], self._due.head)  # retention took what it had not read
                return None
            if (seconds := self._seconds_to_wait(unread)) > 0:
                return seconds
            runs = [self._run(batch) for batch in self._batches(unread)]
            if not self._move_on(runs, unread[-1].number):
                return None  # somebody else is at it
            self._tell(runs)
            if self._cursor >= self._due.head:
                return None
        return 0.0

    def _tell(self, runs: Sequence[TriggeredRun]) -> None:
        new = {run.new.id: run.new for run in runs}
        for run_id, slot in self._journal.read(READ_STARTED, {"runs": serialization.dumps(list(new))}):
            if slot is None:
                self._fired.bells.append(_doorbell(new[run_id]))
            else:
                self._fired.pending.append({**new[run_id].columns(), "slot": slot, "not_before": None})

    def _unread(self) -> list[_Unread]:
        due = self._due
        wanted = MAX_EVENTS if due.is_single else due.batch_size
        found: list[_Unread] = []
        while len(found) < wanted:
            limit = min(wanted - len(found), MAX_EVENTS)
            cursor = found[-1].number if found else self._cursor
            params = {"project": due.project, "topic": due.topic, "cursor": cursor, "limit": limit}
            page = [_Unread(*row) for row in self._journal.read(READ_UNREAD, params)]
            found += page
            if len(page) < limit or _size(found) > self._settings.max_value_bytes:
                break
        return list(_fitting(found, self._settings.max_value_bytes))

    def _seconds_to_wait(self, unread: Sequence[_Unread]) -> float:
        """Return how long a batch may still grow."""
        due = self._due
        is_cut = unread[-1].number < due.head  # more is there than one batch holds
        if due.batch_timeout_seconds is None or len(unread) >= due.batch_size or is_cut:
            return 0.0
        return unread[0].created_at + due.batch_timeout_seconds - due.now

    def _batches(self, unread: Sequence[_Unread]) -> Iterable[Sequence[_Unread]]:
        return [[event] for event in unread] if self._due.is_single else [unread]

    def _run(self, events: Sequence[_Unread]) -> TriggeredRun:
        due = self._due
        hops = max(event.hops for event in events) + 1
        run_id = due.run_id(events[0].number, events[-1].number)
        items = [_item(due.topic, event) for event in events]
        payload: Any = items[0] if due.is_single else {"events": items}
        new = NewRun(
            id=run_id,
            project=due.project,
            deployment=self._deployment,
            kind=due.kind,
            name=due.workflow,
            queue=due.queue,
            route=due.route,
            root_id=run_id,
            root_name=due.workflow,
            session_id=str(uuid.uuid4()),
            hops=hops,
            input=serialization.dumps(payload),
        )
        return TriggeredRun(new, self._problem(hops))

    @functools.cached_property
    def _deployment(self) -> str:
        """The deployment that declares the trigger; where no code does, the newest that serves it."""
        due = self._due
        if due.declared_by is not None:
            return due.deployment
        silence = self._settings.silence_limit_seconds
        params = {"project": due.project, "name": due.workflow, "silence": silence}
        offers = self._journal.read(READ_OFFERS, params)
        return str(offers[0][0]) if offers else due.deployment

    def _problem(self, hops: int) -> str | None:
        limit = self._settings.max_trigger_hops
        if hops <= limit:
            return None
        due = self._due
        logger.error(
            "Workflow %r was not started: events of topic %r trigger one another in a cycle",
            due.workflow,
            due.topic,
        )
        return (
            f"More than {limit} event triggers lie between this run and the first event: events of topic "
            f"{due.topic!r} trigger one another in a cycle. End the cycle, or raise POLOS_MAX_TRIGGER_HOPS"
        )

    def _move_on(self, runs: Sequence[TriggeredRun], to: int) -> bool:
        from_here = DueTrigger(**{**vars(self._due), "cursor": self._cursor})
        settings = self._settings
        unit = fire_trigger(
            from_here,
            runs,
            to=to,
            ring_again=settings.ring_again_seconds,
            window=settings.doorbells_per_route,
        )
        [rows] = self._journal.commit([unit])
        self._cursor = to
        return bool(rows)


def _size(events: Sequence[_Unread]) -> int:
    return sum(len(event.data) for event in events)


def _fitting(events: Sequence[_Unread], limit_bytes: int) -> Iterable[_Unread]:
    """Return the first events that fit into one payload, one at least."""
    total, count = 0, 0
    for event in events:
        total += len(event.data.encode())
        if count and total > limit_bytes:
            break
        count += 1
    return islice(events, count)


def _item(topic: str, event: _Unread) -> dict[str, Any]:
    """Return an event as `EventPayload` has it."""
    return {
        "id": str(event.number),
        "sequence_id": event.number,
        "topic": topic,
        "event_type": event.type,
        "data": json.loads(event.data),
        "created_at": api_time(event.created_at),
    }


def _doorbell(new: NewRun) -> Doorbell:
    return Doorbell(new.id, new.name, new.route, new.deployment)
