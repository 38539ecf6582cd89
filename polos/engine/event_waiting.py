"""Waiting for events of a topic, and handing them to the runs that wait."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from polos.dispatch import Doorbell
from polos.engine.execution import Execution
from polos.engine.inline import value_of
from polos.engine.runtime import Runtime
from polos.engine.timers import set_alarm
from polos.events import EventPayload
from polos.faultpoints import faultpoint
from polos.journal.event_waits import (
    MAX_MET,
    READ_MET_OF_STEP,
    READ_MET_OF_TOPIC,
    Met,
    Wanted,
    wait_for_event,
)
from polos.journal.runs import READ_RUN, run_record
from polos.journal.statements import Rows
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import StepRow
from polos.journal.waits import DueWait, Woken
from polos.streaming.cursor import Position
from polos.waits import handing_over, root_in_topic

MICROSECOND = 2e-6  # as exact as positions are, and what is lost in sums
HALF_A_MILLISECOND = 0.0005
LARGEST_NUMBER = 2**31 - 1  # of an event, as the database keeps it
MAX_ROUNDS = 5  # of MAX_MET waits each that whoever publishes wakes itself; sweepers do the rest


@dataclass(frozen=True)
class EventQuestion:
    """Which event a step waits for. `since` is a sequence id or a moment; None means from now on."""

    topic: str
    event_type: str | None
    since: int | datetime | None
    timeout_seconds: float | None


async def await_event(
    runtime: Runtime, execution: Execution, name: str, question: EventQuestion
) -> EventPayload:
    """Return the earliest event that fits; a replay returns the record.

    Raises:
        StepExecutionError: None came in time.
    """
    claim = execution.claim

    async def begin(position: int) -> None:
        wanted = await _wanted(runtime, claim.project, question)
        unit = wait_for_event(
            claim.id,
            claim.attempt,
            name,
            wanted,
            position=position,
            timeout_seconds=question.timeout_seconds,
        )
        seq, due_at, remaining, number = await execution.answer(unit)
        faultpoint("after_record", f"event wait {name}")
        row = StepRow(name, "event", position, None, StepStatus.RUNNING.value, 0, None, None, None, None)
        execution.under_way(row)
        execution.scheduled(seq)
        if remaining is not None:
            wait = DueWait(claim.id, name, "event", 0.0, due_at, claim.root_id, claim.project, is_live=True)
            set_alarm(runtime, execution, wait, remaining)
        if number is not None:
            await hand_over_to_step(runtime, claim.id, name)

    return EventPayload.model_validate(value_of(await execution.outcome(name, "event", begin)))


async def _wanted(runtime: Runtime, project: str, question: EventQuestion) -> Wanted:
    root_id = await _root_of(runtime, project, question.topic)
    since = question.since
    if isinstance(since, datetime):
        moment = (since if since.tzinfo is not None else since.replace(tzinfo=UTC)).timestamp()
        # SQLite tells milliseconds, some hundredths early or late: what came in this one counts.
        moment = math.floor(moment * 1000) / 1000 - HALF_A_MILLISECOND
        return Wanted(project, question.topic, root_id, question.event_type, since_seconds=moment)
    if since is not None and root_id is not None:  # sequence ids of a tree are moments
        return Wanted(
            project,
            question.topic,
            root_id,
            question.event_type,
            since_seconds=Position.of_sequence(since).seconds + MICROSECOND,
        )
    number = None if since is None else min(since, LARGEST_NUMBER)
    return Wanted(project, question.topic, root_id, question.event_type, since_number=number)


async def _root_of(runtime: Runtime, project: str, topic: str) -> str | None:
    """Return the root run whose tree a topic belongs to, None for a topic of the program's own."""
    root_id = root_in_topic(topic)
    rows = [] if root_id is None else await runtime.journal.read(READ_RUN, run=root_id)
    run = run_record(rows[0]) if rows else None
    if run is None or (run["project"], run["root_id"]) != (project, root_id):
        return None
    return root_id


# -- handing over


async def hand_over_to_step(runtime: Runtime, run_id: str, name: str) -> None:
    """Complete a step whose event is there."""
    await _hand_over(runtime, await runtime.journal.read(READ_MET_OF_STEP, run=run_id, name=name))


async def hand_over_events(runtime: Runtime, project: str, topic: str) -> None:
    """Complete the steps that wait for what was published to a topic; the rest is left to sweepers."""
    for _ in range(MAX_ROUNDS):
        rows = await runtime.journal.read(READ_MET_OF_TOPIC, project=project, topic=topic)
        await _hand_over(runtime, rows)
        if len(rows) < MAX_MET:
            return


async def _hand_over(runtime: Runtime, rows: Rows) -> None:
    waits = [Met(*row) for row in rows]
    ring_again = runtime.settings.ring_again_seconds
    units = [handing_over(met, ring_again=ring_again) for met in waits]
    answers: list[Any] = await asyncio.gather(*(runtime.journal.do(unit) for unit in units))
    for met, answer in zip(waits, answers, strict=True):
        if answer:
            await tell_woken(runtime, met.run_id, Woken(*answer[0]))


async def tell_woken(runtime: Runtime, run_id: str, woken: Woken) -> None:
    """Ring for a run that was parked, or tell the worker that keeps it."""
    if woken.wants_bell:
        runtime.dispatcher.ring(Doorbell(run_id, woken.name, woken.route, woken.deployment, begun=True))
    elif woken.status != RunStatus.QUEUED:
        await runtime.wake(run_id, woken.status, woken.owner)
