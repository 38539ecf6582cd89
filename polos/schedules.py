"""Schedules: workflows that start by the clock. The client given first does what a function says."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from polos.cron import KEY, CatchUp
from polos.handles import ExecutionHandle

Status = Literal["active", "paused", "inactive"]


class SchedulePayload(BaseModel):
    """What a scheduled run is started with. Times are in UTC.

    Attributes:
        timestamp: The time it was due, which may be a while ago.
        last_timestamp: The same of the run before; None for the first.
        timezone: Of the schedule, an IANA name.
        schedule_id: As `create` returned it.
        key: Tells the schedules of one workflow apart.
        upcoming: When the next run is due.
    """

    timestamp: datetime
    last_timestamp: datetime | None = None
    timezone: str
    schedule_id: str
    key: str
    upcoming: datetime


class Schedule(BaseModel):
    """A schedule as it stands.

    Attributes:
        status: ``active``, ``paused`` by `pause`, or ``inactive``: code declared it once, and no longer does.
        catch_up: What becomes of ticks that are missed.
        declared_by: Deployment whose code declares it; None for one that a program created.
        next_run_at: None unless it is active.
    """

    id: str
    workflow_id: str
    cron: str
    timezone: str
    key: str
    status: Status
    catch_up: CatchUp = "one"
    declared_by: str | None = None
    deployment_id: str | None = None
    last_run_at: datetime | None = None
    last_run_id: str | None = None
    next_run_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


class Schedules(Protocol):
    """The schedules of a project, as a client has them in ``client.schedules``."""

    async def create(
        self, workflow: str, cron: str, timezone: str = "UTC", key: str = KEY, *, catch_up: CatchUp = "one"
    ) -> str:
        """Create a schedule, or change the one with this workflow and key; return its id."""

    async def list(self, workflow: str | None = None) -> builtins.list[Schedule]:
        """Return the schedules of a workflow, or of all."""

    async def get(self, schedule_id: str) -> Schedule:
        """Return a schedule."""

    async def pause(self, schedule_id: str) -> Schedule:
        """Start nothing more until it is resumed."""

    async def resume(self, schedule_id: str) -> Schedule:
        """Go on with the next time; nothing is made up for."""

    async def delete(self, schedule_id: str) -> None:
        """Forget a schedule."""

    async def trigger(self, schedule_id: str) -> ExecutionHandle:
        """Start a run of it now."""


class ScheduleClient(Protocol):
    """What this module needs of a client; see `PolosClient`."""

    @property
    def schedules(self) -> Schedules:
        """The schedules of its project."""


class SyncSchedules:
    """The same for code that cannot await; made by ``client.sync.schedules``."""

    def __init__(self, schedules: Schedules, call: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._schedules = schedules
        self._call = call

    def create(
        self, workflow: str, cron: str, timezone: str = "UTC", key: str = KEY, *, catch_up: CatchUp = "one"
    ) -> str:
        """Create a schedule, or change the one with this workflow and key; return its id."""
        return str(self._call(self._schedules.create(workflow, cron, timezone, key, catch_up=catch_up)))

    def list(self, workflow: str | None = None) -> builtins.list[Schedule]:
        """Return the schedules of a workflow, or of all."""
        found: builtins.list[Schedule] = self._call(self._schedules.list(workflow))
        return found

    def get(self, schedule_id: str) -> Schedule:
        """Return a schedule."""
        found: Schedule = self._call(self._schedules.get(schedule_id))
        return found

    def pause(self, schedule_id: str) -> Schedule:
        """Start nothing more until it is resumed."""
        found: Schedule = self._call(self._schedules.pause(schedule_id))
        return found

    def resume(self, schedule_id: str) -> Schedule:
        """Go on with the next time; nothing is made up for."""
        found: Schedule = self._call(self._schedules.resume(schedule_id))
        return found

    def delete(self, schedule_id: str) -> None:
        """Forget a schedule."""
        self._call(self._schedules.delete(schedule_id))

    def trigger(self, schedule_id: str) -> ExecutionHandle:
        """Start a run of it now."""
        handle: ExecutionHandle = self._call(self._schedules.trigger(schedule_id))
        return handle


async def create(
    client: ScheduleClient,
    workflow: str,
    cron: str,
    timezone: str = "UTC",
    key: str = KEY,
    *,
    catch_up: CatchUp = "one",
) -> str:
    """Create a schedule, or change the one with this workflow and key; return its id, which stays the same.

    Args:
        client: A `PolosClient` or `Polos`.
        workflow: Id of a workflow with ``schedule=``, such as ``@workflow(schedule=True)``.
        cron: Minute, hour, day of month, month, day of week (0 and 7 are Sunday).
        timezone: IANA name of the zone that the expression is in.
        key: Tells the schedules of one workflow apart, such as the id of a user. A run of one never overlaps
            another run of the same.
        catch_up: Of ticks missed while nobody served: ``one`` run for all, a run for ``all`` of them one
            after the other, or ``skip`` what is more than a minute late.

    Raises:
        ValueError: The workflow is unknown or cannot be scheduled, the expression is none or never fires, or
            the zone does not exist.
        ServiceUnavailableError: The database or server does not answer.
    """
    return await client.schedules.create(workflow, cron, timezone, key, catch_up=catch_up)


async def list(client: ScheduleClient, workflow: str | None = None) -> builtins.list[Schedule]:
    """Return the schedules of a workflow, or of all."""
    return await client.schedules.list(workflow)


async def get(client: ScheduleClient, schedule_id: str) -> Schedule:
    """Return a schedule.

    Raises:
        ValueError: There is none with this id.
    """
    return await client.schedules.get(schedule_id)


async def pause(client: ScheduleClient, schedule_id: str) -> Schedule:
    """Start nothing more until it is resumed; return how it stands then. What runs goes on.

    Raises:
        ValueError: There is no such schedule.
    """
    return await client.schedules.pause(schedule_id)


async def resume(client: ScheduleClient, schedule_id: str) -> Schedule:
    """Let a paused schedule go on with its next time; ticks of the pause are not made up for.

    Raises:
        ValueError: There is no such schedule.
    """
    return await client.schedules.resume(schedule_id)


async def delete(client: ScheduleClient, schedule_id: str) -> None:
    """Forget a schedule; runs it started go on. One that code declares comes back with the next worker.

    Raises:
        ValueError: There is no such schedule.
    """
    await client.schedules.delete(schedule_id)


async def trigger(client: ScheduleClient, schedule_id: str) -> ExecutionHandle:
    """Start a run of a schedule now, with `timestamp` now; its ticks wait until that has ended.

    Raises:
        ValueError: There is no such schedule.
    """
    return await client.schedules.trigger(schedule_id)
