"""Schedules of a project, asked of a server."""

from __future__ import annotations

import builtins
from typing import Any
from urllib.parse import quote

from polos.cron import KEY, CatchUp
from polos.errors import InputError
from polos.handles import ExecutionHandle
from polos.remote.connection import ServerConnection
from polos.remote.refusals import data_of
from polos.schedules import Schedule


class RemoteSchedules:
    """See `polos.schedules.Schedules` for what each method does."""

    def __init__(self, server: ServerConnection) -> None:
        self._server = server

    async def create(
        self, workflow: str, cron: str, timezone: str = "UTC", key: str = KEY, *, catch_up: CatchUp = "one"
    ) -> str:
        """See `Schedules`."""
        body = {
            "workflow_id": workflow,
            "cron": cron,
            "timezone": timezone,
            "key": key,
            "catch_up": catch_up,
        }
        return str((await self._asked("POST", "/schedules", body=body))["schedule_id"])

    async def list(self, workflow: str | None = None) -> builtins.list[Schedule]:
        """See `Schedules`."""
        params = {} if workflow is None else {"workflow_id": workflow}
        found = (await self._asked("GET", "/schedules", params=params))["schedules"]
        return [Schedule.model_validate(one) for one in found]

    async def get(self, schedule_id: str) -> Schedule:
        """See `Schedules`."""
        return Schedule.model_validate(await self._of(schedule_id, "GET"))

    async def pause(self, schedule_id: str) -> Schedule:
        """See `Schedules`."""
        return Schedule.model_validate(await self._of(schedule_id, "POST", "/pause"))

    async def resume(self, schedule_id: str) -> Schedule:
        """See `Schedules`."""
        return Schedule.model_validate(await self._of(schedule_id, "POST", "/resume"))

    async def delete(self, schedule_id: str) -> None:
        """See `Schedules`."""
        await self._of(schedule_id, "DELETE", is_repeatable=False)

    async def trigger(self, schedule_id: str) -> ExecutionHandle:
        """See `Schedules`."""
        started = await self._of(schedule_id, "POST", "/trigger", is_repeatable=False)
        return ExecutionHandle(
            id=started["execution_id"],
            **{name: value for name, value in started.items() if name in ExecutionHandle.model_fields},
        )

    async def _of(self, schedule_id: str, method: str, what: str = "", **how: Any) -> dict[str, Any]:
        path = f"/schedules/{quote(schedule_id, safe='')}{what}"
        found: dict[str, Any] | None = await self._asked(method, path, **how) if schedule_id else None
        if found is None:
            raise InputError(f"There is no schedule {schedule_id!r} in this project")
        return found

    async def _asked(self, method: str, path: str, **how: Any) -> Any:
        response = await self._server.ask(method, path, **how)
        if response is None or response.status_code == 204:
            return None if response is None else {}
        return data_of(response, self._server.url)
