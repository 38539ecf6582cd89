"""What a client does with runs that exist, with events, and with what starts runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from polos import serialization
from polos.current import refuse_inside_run
from polos.errors import WorkflowTimeoutError
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.queues import QueueInfo
from polos.records import RESULT_NAMES
from polos.registry import get_workflow
from polos.schedules import Schedules
from polos.sessions import Sessions
from polos.transport import ForkRequest, Transport
from polos.usage import UsageReport, usage_request

if TYPE_CHECKING:
    from polos.events import EventData, StreamEvent


class RunOperations:
    """The operations of a client besides starting runs. A client sets what is declared here."""

    project_id: str
    _transport: Transport

    # -- waiting and reading

    async def wait(self, execution_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the record of a run once it has ended.

        Says so when no live worker serves the run, and goes on waiting.

        Raises:
            WorkflowTimeoutError: It did not end in time; it may still be going.
            ValueError: There is no such run.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                return self._known(execution_id, await self._transport.ended_run(execution_id))
        except TimeoutError as error:
            raise WorkflowTimeoutError(execution_id, timeout_seconds or 0.0) from error

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return the record of a run as plain JSON data.

        Raises:
            ValueError: There is no such run in this project.
        """
        return self._known(execution_id, await self._transport.read_run(execution_id))

    def _known(self, execution_id: str, record: dict[str, Any] | None) -> dict[str, Any]:
        if record is None:
            raise ValueError(f"There is no run {execution_id!r} in project {self.project_id!r}")
        return record

    async def get_result(self, execution_id: str) -> dict[str, Any]:
        """Return where a run stands, its result rebuilt as the class it had where that is known here."""
        record = await self.get_execution(execution_id)
        shown = {name: record[name] for name in RESULT_NAMES}
        if record["status"] == "completed":
            definition = get_workflow(record["workflow_id"])
            schema = record["output_schema_name"]
            shown["result"] = (
                definition.rebuild_result(record["result"], schema)
                if definition is not None
                else serialization.rebuild(record["result"], schema)
            )
        return shown

    async def cancel_execution(self, execution_id: str) -> bool:
        """Cancel a run and all it started; False when it has ended or does not exist."""
        return await self._transport.cancel_run(execution_id)

    async def retry(self, execution_id: str) -> None:
        """Let a failed or cancelled run go on from its journal; it has the same id and a new end.

        Completed steps keep their outcomes. A failure that the code did not handle is taken back and its step
        executed again, children included; so is what was cut off by the end.

        Raises:
            ValueError: There is no such run, another run started it (retry that tree's root), or it has
                neither failed nor been cancelled.
        """
        refuse_inside_run(f"retry({execution_id!r})")
        await self._transport.retry_run(execution_id)

    async def fork(
        self,
        run_id: str,
        from_step: str | None = None,
        *,
        input: Any = None,
        patch: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        idempotency_key: str | None = None,
        deployment_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a new run that goes on from a copy of another one's journal, and return its handle at once.

        The other run, live or ended, is left alone. What it started is not started again: outcomes of its
        children are copied like those of other steps.

        Args:
            run_id: The run to begin from.
            from_step: Key of the first step that is executed again; what had an outcome when it was first
                asked for is taken over. None: all outcomes there are.
            input: Instead of the run's own, if it is not None.
            patch: Values to go on with instead of recorded outcomes, by keys of steps that are taken over.
            session_id: By default the run's own.
            user_id: By default the run's own.
            idempotency_key: With a key that was used before, the earlier fork is returned.
            deployment_id: Version of the code; by default the client's, else the run's own.

        Raises:
            ValueError: There is no such run or step, nothing is recorded, or a patched step is not taken
                over.
            TypeError: A value cannot be JSON.
        """
        refuse_inside_run(f"fork({run_id!r})")
        check_labels(session_id=session_id, user_id=user_id, idempotency_key=idempotency_key)
        request = ForkRequest(
            execution_id=run_id,
            from_step=from_step,
            input=serialization.to_data(input),
            patch={key: serialization.to_data(value) for key, value in (patch or {}).items()},
            session_id=session_id,
            user_id=user_id,
            idempotency_key=idempotency_key,
            deployment_id=deployment_id,
        )
        return await self._transport.fork_run(request)

    async def resume(
        self,
        suspend_workflow_id: str,
        suspend_execution_id: str,
        suspend_step_key: str,
        data: Any,
        suspend_run_id: str | None = None,
        *,
        answered_by: str | None = None,
    ) -> None:
        """Answer a ``ctx.step.suspend``; nothing happens when nobody waits (any more).

        Args:
            suspend_workflow_id: Of the root run.
            suspend_execution_id: The root run, even if one below it waits.
            suspend_step_key: What it waits under.
            data: The answer, a dict or model. Where the question has a form, texts are read as the types
                of its fields.
            suspend_run_id: The run that waits, where several of the tree do under one key; else the one that
                waits longest gets the answer.
            answered_by: Who answers, to be stored with the answer.

        Raises:
            AnswerError: The answer does not fit the form of the question, which still waits.
            ValueError: There is no such run, or the data is too large.
            TypeError: The data cannot be JSON.
        """
        given = serialization.to_data(data)
        await self._transport.resume_run(
            suspend_execution_id, suspend_step_key, given, run_id=suspend_run_id, answered_by=answered_by
        )

    # -- events

    def follow(
        self, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of the run tree that a run belongs to, until the run's own end was delivered.

        Args:
            run_id: Of any run of the tree.
            after: None for all from the start of the run; the id of an event for exactly what follows it;
                a sequence id for what follows that.
            live: From now on: waits for people that are still pending first, and the end at once if it has
                ended.

        Raises:
            ValueError: There is no such run, or `after` is no position.
        """
        return self._transport.follow(run_id, after=after, live=live)

    def follow_topic(
        self, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a topic for ever: from now on, or those after a sequence id or a time."""
        return self._transport.follow_topic(topic, after=after, after_time=after_time)

    async def publish_events(
        self,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """Publish events on a topic, all or none; return their sequence ids, in order and without a gap."""
        if not events:
            return []
        return await self._transport.publish_events(
            topic, events, execution_id=execution_id, root_execution_id=root_execution_id
        )

    async def list_events(
        self, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """Return recorded events of a topic with sequence ids above `after`; `descending`: newest first."""
        return await self._transport.list_events(topic, after=after, limit=limit, descending=descending)

    # -- queues

    async def list_queues(self) -> list[QueueInfo]:
        """Return the queues of the project that have limits, or runs that wait to be admitted."""
        return await self._transport.list_queues()

    # -- usage

    async def usage(
        self,
        by: str | None = None,
        *,
        since: datetime | timedelta | None = None,
        until: datetime | None = None,
        agent: str | None = None,
        model: str | None = None,
        session: str | None = None,
        run_id: str | None = None,
    ) -> UsageReport:
        """Return what the project's model calls used and cost, failed and interrupted ones included.

        Args:
            by: A row for each ``day``, ``agent``, ``model`` or ``session``; None for the total alone.
            since: Calls that ended then or later; a duration means so long ago.
            until: Calls that ended before.
            agent: Id of the agent that spoke.
            model: As ``provider/model``.
            session: Of runs of this session.
            run_id: Of this run and all runs below it, those that still go on too.

        Raises:
            ValueError: `by` is none of these.
        """
        request = usage_request(by, since, until, agent=agent, model=model, session=session, run_id=run_id)
        return await self._transport.usage(request)

    # -- schedules

    @property
    def schedules(self) -> Schedules:
        """Its project's schedules; `polos.schedules` has the same as functions."""
        return self._transport.schedules

    # -- sessions

    @property
    def sessions(self) -> Sessions:
        """What agents remember of the sessions of its project."""
        return self._transport.sessions
