"""`StreamResult`: an agent run as it happens, for whoever started it or knows its id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from polos.errors import RunFailedError, WorkflowTimeoutError
from polos.event_data import ends_run, topic_of
from polos.events import StreamEvent
from polos.handles import ExecutionHandle
from polos.types import AgentResult

HANDLE_FIELDS = (
    "workflow_id",
    "created_at",
    "parent_execution_id",
    "root_workflow_id",
    "root_execution_id",
    "session_id",
    "user_id",
    "step_key",
)


class StreamClient(Protocol):
    """What a stream needs of a client."""

    def follow(
        self, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a run tree until the run's own end."""

    async def get_result(self, execution_id: str) -> dict[str, Any]:
        """Return where a run stands, its result rebuilt."""


class AgentStreamHandle:
    """The events of an agent run from its start, as an async iterable; each iteration begins anew.

    Attributes:
        last_valid_event_id: Id of the last event an iteration gave, to follow on from.

    Raises:
        RunFailedError: The run failed or was cancelled; raised behind the event that says so.
        WorkflowTimeoutError: The run used up its time.
    """

    def __init__(
        self,
        client: StreamClient,
        agent_run_id: str,
        root_workflow_id: str,
        root_execution_id: str,
        created_at: str | None = None,
    ) -> None:
        self.client = client
        self.agent_run_id = agent_run_id
        self.root_workflow_id = root_workflow_id
        self.root_execution_id = root_execution_id
        self.created_at = created_at
        self.topic = topic_of(root_workflow_id, root_execution_id)
        self.last_valid_event_id: str | None = None

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[StreamEvent]:
        async for event in self.client.follow(self.agent_run_id):
            self.last_valid_event_id = event.id
            yield event
            _raise_if_failed(event, self.agent_run_id)


class FullEventIterator:
    """All events of the run and of what it started, to its end."""

    def __init__(self, result: StreamResult) -> None:
        self._handle = result.stream_handle()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return aiter(self._handle)


class TextChunkIterator:
    """The pieces of this agent's own text. None comes twice, also when a turn was begun again."""

    def __init__(self, result: StreamResult) -> None:
        self._handle = result.stream_handle()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[str]:
        turns: dict[int, _TurnText] = {}
        async for event in self._handle:
            if (step := _own_step(event, self._handle.agent_run_id)) is None:
                continue
            turn = turns.setdefault(step, _TurnText())
            if event.event_type == "text_delta" and (piece := turn.add(event.data["content"] or "")):
                yield piece
            elif event.event_type in {"stream_reset", "stream_start"}:
                turn.begin_again()


class _TurnText:
    """One turn's text: what was given, and where an attempt that began again is in it."""

    def __init__(self) -> None:
        self._given: list[str] = []
        self._again: list[str] = []  # what the attempt under way has said of it
        self._left = ""  # what it has not said yet

    def begin_again(self) -> None:
        self._again, self._left = [], "".join(self._given)

    def add(self, piece: str) -> str:
        """Return what of `piece` was not given before: all of it, once the attempts differ."""
        if not self._left:
            self._given.append(piece)
            return piece
        self._again.append(piece)
        common = _common(self._left, piece)
        self._left = self._left[common:]
        if common == len(piece):
            return ""
        self._given, self._left = self._again, ""
        return piece[common:]


class StreamResult:
    """A streamed agent run. Every property can be used repeatedly: each use reads from the run's start."""

    def __init__(self, execution_handle: ExecutionHandle, client: StreamClient) -> None:
        self.client = client
        self.handle = execution_handle
        self.agent_run_id = execution_handle.id
        self.id = execution_handle.id
        for name in HANDLE_FIELDS:
            setattr(self, name, getattr(execution_handle, name))
        self.topic = self.stream_handle().topic

    def stream_handle(self) -> AgentStreamHandle:
        """Return the events below, with where an iteration is."""
        handle = self.handle
        return AgentStreamHandle(
            self.client,
            handle.id,
            handle.root_workflow_id or handle.workflow_id or "",
            handle.root_execution_id or handle.id,
            handle.created_at,
        )

    @property
    def text_chunks(self) -> TextChunkIterator:
        """The pieces of the answer as they come; see `TextChunkIterator`."""
        return TextChunkIterator(self)

    @property
    def events(self) -> FullEventIterator:
        """Everything that happens in the run and in what it starts; see `FullEventIterator`."""
        return FullEventIterator(self)

    async def text(self) -> str:
        """Return the whole text once the run has ended, of attempts that count.

        Raises:
            RunFailedError: The run failed or was cancelled.
            WorkflowTimeoutError: The run used up its time.
        """
        turns: dict[int, str] = {}
        async for event in self.stream_handle():
            if (step := _own_step(event, self.id)) is None:
                continue
            if event.event_type == "text_delta":
                turns[step] = turns.get(step, "") + (event.data["content"] or "")
            elif event.event_type in {"stream_reset", "stream_start"}:
                turns[step] = ""
        return "".join(turns.values())

    async def result(self) -> AgentResult:
        """Return the result once the run has ended, its output and tool results as the classes they had.

        Raises:
            RunFailedError: The run failed or was cancelled.
            WorkflowTimeoutError: The run used up its time.
        """
        async for _ in self.client.follow(self.id, live=True):
            pass
        ended = await self.client.get_result(self.id)
        if ended["status"] != "completed":
            raise RunFailedError(_failure(self.id, ended.get("error") or ended["status"]))
        result: AgentResult = ended["result"]
        return result

    async def get(self) -> dict[str, Any]:
        """Return where the run stands, as `ExecutionHandle.get` does."""
        return await self.client.get_result(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return the handle as JSON data."""
        return self.handle.to_dict()

    def __repr__(self) -> str:
        return f"StreamResult(id={self.id!r}, topic={self.topic!r})"


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _own_step(event: StreamEvent, run_id: str) -> int | None:
    """Return which turn of this run an event is about, None for anything else, nested agents included."""
    where = event.data.get("_metadata") or {}
    return event.data.get("step") if where.get("execution_id") == run_id else None


def _raise_if_failed(event: StreamEvent, run_id: str) -> None:
    if not ends_run(event.event_type, event.data, run_id):
        return
    if event.data.get("cancelled_by") == "timeout":
        error = WorkflowTimeoutError(run_id, 0)
        error.args = (_failure(run_id, event.data["error"]),)  # says after how many seconds
        raise error
    if event.data.get("error") is not None or (event.event_type or "").endswith("_cancel"):
        raise RunFailedError(_failure(run_id, event.data.get("error") or "cancelled"))


def _failure(run_id: str, reason: object) -> str:
    return f"Workflow execution failed: {reason} (run {run_id})"
