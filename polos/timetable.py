"""Schedules below a direct client: made, changed and read in the journal."""

from __future__ import annotations

import asyncio
import builtins
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from polos import serialization
from polos.cron import KEY, CatchUp, CronSchedule, next_tick
from polos.errors import InputError
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.journal.offers import read_offered
from polos.journal.schedules import (
    ACTIVE,
    PAUSED,
    READ_SCHEDULE,
    READ_SCHEDULES,
    NewSchedule,
    delete_schedule,
    put_schedule,
    schedule_record,
    set_schedule_status,
)
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.workers import READ_CLOCK
from polos.records import api_time
from polos.schedules import Schedule

Row = dict[str, Any]


class Journal(Protocol):
    """A connection to the journal."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


@dataclass(frozen=True)
class Place:
    """Where runs of a workflow go."""

    deployment: str
    kind: str
    route: str


class Timetable:
    """The schedules of one project. Blocking: called in threads.

    Args:
        journal: Of the client.
        project: Whose schedules.
        silence_limit_seconds: After which a worker counts as gone.
        place_here: Returns where the runs of a workflow go that is defined in this process and can be
            scheduled; None for another.
    """

    def __init__(
        self,
        journal: Journal,
        project: str,
        *,
        silence_limit_seconds: float,
        place_here: Callable[[str], Place | None],
    ) -> None:
        self._journal = journal
        self._project = project
        self._silence_limit_seconds = silence_limit_seconds
        self._place_here = place_here

    def create(self, workflow: str, times: CronSchedule) -> str:
        """Create a schedule, or change the one with this workflow and key; return its id.

        Raises:
            ValueError: The workflow is unknown or cannot be scheduled.
        """
        check_labels(workflow=workflow, key=times.key)
        place = self._place(workflow)
        new = NewSchedule(
            project=self._project,
            workflow=workflow,
            key=times.key,
            cron=times.cron,
            timezone=times.timezone,
            catch_up=times.catch_up,
            deployment=place.deployment,
            kind=place.kind,
            route=place.route,
            next_at=next_tick(times.cron, times.timezone, self._now()),
        )
        self._journal.commit([put_schedule(new)])
        return new.id

    def entries(self, workflow: str | None) -> list[Schedule]:
        """Return the schedules of a workflow, or of all."""
        rows = self._journal.read(READ_SCHEDULES, {"project": self._project, "workflow": workflow})
        return [shown(schedule_record(row)) for row in rows]

    def row(self, schedule_id: str) -> Row:
        """Return a schedule by column name.

        Raises:
            ValueError: There is none such in this project.
        """
        rows = self._journal.read(READ_SCHEDULE, {"project": self._project, "id": schedule_id})
        if not rows:
            raise InputError(f"There is no schedule {schedule_id!r} in project {self._project!r}")
        return schedule_record(rows[0])

    def pause(self, schedule_id: str) -> Row:
        """Start nothing more of it; return how it stands then."""
        self.row(schedule_id)
        self._journal.commit([set_schedule_status(self._project, schedule_id, PAUSED, next_at=None)])
        return self.row(schedule_id)

    def resume(self, schedule_id: str) -> Row:
        """Go on with its next tick; return how it stands then."""
        row = self.row(schedule_id)
        tick = next_tick(row["cron"], row["timezone"], self._now())
        self._journal.commit([set_schedule_status(self._project, schedule_id, ACTIVE, next_at=tick)])
        return self.row(schedule_id)

    def delete(self, schedule_id: str) -> None:
        """Forget it.

        Raises:
            ValueError: There is none such.
        """
        self.row(schedule_id)
        self._journal.commit([delete_schedule(self._project, schedule_id)])

    def run_now(self, schedule_id: str) -> Row:
        """Return the columns of a run of it that starts now.

        Raises:
            ValueError: There is no such schedule.
        """
        row = self.row(schedule_id)
        tick = self._now()
        upcoming = next_tick(row["cron"], row["timezone"], tick) or tick
        run_id = str(uuid.uuid4())
        return {
            "id": run_id,
            "root_id": run_id,
            "project": self._project,
            "deployment": row["deployment"],
            "kind": row["kind"],
            "name": row["workflow"],
            "root_name": row["workflow"],
            "route": row["route"],
            "queue": row["workflow"],
            "concurrency_key": row["key"],
            "session_id": str(uuid.uuid4()),
            "schedule_id": row["id"],
            "input": serialization.dumps(payload_of(row, tick=tick, upcoming=upcoming)),
        }

    # -- where its runs go

    def _place(self, workflow: str) -> Place:
        offered = self._offered(workflow)
        if offered is not None:
            return offered
        if (here := self._place_here(workflow)) is not None:
            return here
        known = self._journal.read(READ_SCHEDULES, {"project": self._project, "workflow": workflow})
        if known:
            row = schedule_record(known[0])
            return Place(row["deployment"], row["kind"], row["route"])
        raise InputError(
            f"Workflow {workflow!r} is unknown: no live worker offers it. Start one that does, "
            "or correct the id"
        )

    def _offered(self, workflow: str) -> Place | None:
        """Return where live workers serve a workflow, the newest deployment first."""
        found = read_offered(
            self._journal, self._project, silence_limit_seconds=self._silence_limit_seconds, name=workflow
        )
        for offer in found:
            details = serialization.loads(offer["details"] or "{}")
            if not details.get("schedulable"):
                raise unschedulable(workflow)
            return Place(offer["deployment"], offer["kind"], details["route"])
        return None

    def _now(self) -> float:
        [(now, _)] = self._journal.read(READ_CLOCK, {})
        return float(now)


class TimetableBackend(Protocol):
    """What a client's schedules need of its connections; see `ClientBackend`."""

    def timetable(self, project: str) -> Timetable:
        """Return the schedules of a project."""


class DirectSchedules:
    """Schedules of one project, in the journal; see `Schedules` for what each method does.

    Args:
        project: Whose.
        backend: Returns connections.
        serve: Sees to it that a workflow of this process is served.
        start: Starts a run with these columns.
    """

    def __init__(
        self,
        project: str,
        *,
        backend: Callable[[], Awaitable[TimetableBackend]],
        serve: Callable[[str], Awaitable[None]],
        start: Callable[[Row], Awaitable[ExecutionHandle]],
    ) -> None:
        self._project = project
        self._backend = backend
        self._serve = serve
        self._start = start

    async def create(
        self, workflow: str, cron: str, timezone: str = "UTC", key: str = KEY, *, catch_up: CatchUp = "one"
    ) -> str:
        """See `Schedules`."""
        times = times_of(cron, timezone, key, catch_up)
        schedule_id: str = await self._do(Timetable.create, workflow, times)
        await self._serve(workflow)
        return schedule_id

    async def list(self, workflow: str | None = None) -> builtins.list[Schedule]:
        """See `Schedules`."""
        found: builtins.list[Schedule] = await self._do(Timetable.entries, workflow)
        return found

    async def get(self, schedule_id: str) -> Schedule:
        """See `Schedules`."""
        return shown(await self._do(Timetable.row, schedule_id))

    async def pause(self, schedule_id: str) -> Schedule:
        """See `Schedules`."""
        return shown(await self._do(Timetable.pause, schedule_id))

    async def resume(self, schedule_id: str) -> Schedule:
        """See `Schedules`."""
        return shown(await self._do(Timetable.resume, schedule_id))

    async def delete(self, schedule_id: str) -> None:
        """See `Schedules`."""
        await self._do(Timetable.delete, schedule_id)

    async def trigger(self, schedule_id: str) -> ExecutionHandle:
        """See `Schedules`."""
        row = await self._do(Timetable.run_now, schedule_id)
        await self._serve(row["name"])
        return await self._start(row)

    async def _do(self, work: Callable[..., Any], *args: Any) -> Any:
        timetable = (await self._backend()).timetable(self._project)
        return await asyncio.to_thread(work, timetable, *args)


def unschedulable(workflow: str) -> InputError:
    """Return the error of scheduling what was not made for it."""
    return InputError(
        f"Workflow {workflow!r} cannot be scheduled: declare it with @workflow(schedule=True), or with a "
        "cron expression"
    )


def times_of(cron: str, timezone: str, key: str, catch_up: CatchUp) -> CronSchedule:
    """Return checked times.

    Raises:
        ValueError: The expression cannot be read or never fires, or zone, key or `catch_up` are none.
    """
    try:
        return CronSchedule(cron, timezone, key, catch_up)
    except ValueError as error:
        raise InputError(str(error)) from error


def payload_of(schedule: Mapping[str, Any], *, tick: float, upcoming: float) -> dict[str, Any]:
    """Return `SchedulePayload` of a tick as JSON data."""
    return {
        "timestamp": api_time(tick),
        "last_timestamp": api_time(schedule["last_at"]),
        "timezone": schedule["timezone"],
        "schedule_id": schedule["id"],
        "key": schedule["key"],
        "upcoming": api_time(upcoming),
    }


def shown(row: Row) -> Schedule:
    """Return a row of the table as users see it."""
    return Schedule(
        id=row["id"],
        workflow_id=row["workflow"],
        cron=row["cron"],
        timezone=row["timezone"],
        key=row["key"],
        status=row["status"],
        catch_up=row["catch_up"],
        declared_by=row["declared_by"],
        deployment_id=row["deployment"],
        last_run_at=_moment(row["last_at"]),
        last_run_id=row["last_run_id"],
        next_run_at=_moment(row["next_at"]),
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
