"""What callers do with an agent: give it an input, run it, stream it, in batches, from async code or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from polos import serialization
from polos.agents.batches import DEFAULT_CONCURRENCY, run_batch
from polos.agents.inputs import AgentRunConfig, Input, check_input, payload_of
from polos.agents.stream import StreamClient, StreamResult
from polos.agents.sync_stream import SyncStreamResult
from polos.agents.usage_limits import PAYLOAD_KEY, UsageLimits, with_usage_limits
from polos.callers import call_sync, client_and_payload
from polos.current import refuse_inside_run
from polos.inputs import check_labels
from polos.types import AgentResult
from polos.workflows import Workflow

if TYPE_CHECKING:
    from polos.agents.agent import Agent


class StartedByInput(Workflow):
    """A workflow that is started with a text or messages: the side of `Agent` that callers use."""

    @property
    def _agent(self) -> Agent:
        return cast("Agent", self)

    def check_payload(self, payload: object) -> Any:
        """Return an agent payload ``{"input", "streaming", "provider_kwargs"}`` as JSON data.

        Raises:
            TypeError: It is not a dict, or cannot be JSON.
            ValueError: It has no usable input.
        """
        if not isinstance(payload, dict):
            raise TypeError(
                f"Agent {self.id!r} takes a payload such as {{'input': 'text'}}, not {type(payload).__name__}"
            )
        if "input" not in payload:
            raise ValueError(f"The payload of agent {self.id!r} has no 'input'")
        check_input(self.id, payload["input"])
        limits = payload.get(PAYLOAD_KEY)
        return serialization.to_data(with_usage_limits(payload, f"A run of agent {self.id!r}", limits))

    def parse_payload(self, data: Any) -> Any:
        """Return the recorded payload.

        Raises:
            ValueError: It is not one for an agent.
        """
        try:
            return self.check_payload(data)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def with_input(
        self,
        input: Input,
        initial_state: BaseModel | dict[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        streaming: bool = False,
        run_timeout_seconds: int | None = None,
        *,
        usage_limits: UsageLimits | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> AgentRunConfig:
        """Return this agent with an input, for ``ctx.step.agent_invoke*`` and `batch_agent_invoke`.

        Further keywords are passed to the provider unchanged.
        """
        check_input(self.id, input)
        check_labels(session_id=session_id, user_id=user_id)
        return AgentRunConfig(
            self._agent,
            input,
            session_id=session_id,
            user_id=user_id,
            streaming=streaming,
            initial_state=initial_state,
            run_timeout_seconds=run_timeout_seconds,
            usage_limits=usage_limits,
            **kwargs,
        )

    async def run(  # type: ignore[override]  # an agent takes text where a workflow takes a payload
        self,
        client: Any = None,
        input: Any = None,
        initial_state: BaseModel | dict[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 600.0,
        *,
        usage_limits: UsageLimits | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> AgentResult:
        """Run the agent to its answer; ``await agent.run("text")`` uses the default client.

        `timeout` is in seconds, None for no limit. `usage_limits` come before those of the agent. Further
        keywords (``temperature``, ``thinking``, ``reasoning_effort``, …) go to the provider unchanged.

        Raises:
            RunFailedError: The run failed or was cancelled.
            WorkflowTimeoutError: It did not end in time; it may still be going.
            RuntimeError: Called inside a run, where ``ctx.step.agent_invoke_and_wait`` must be used.
        """
        refuse_inside_run(f"run() of agent {self.id!r}")
        starter, text = client_and_payload(client, input)
        check_input(self.id, text)
        result: AgentResult = await super().run(
            starter,
            payload_of(text, kwargs, streaming=False, usage_limits=usage_limits),
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            timeout=timeout,
        )
        return result

    async def stream(
        self,
        client: Any = None,
        input: Any = None,
        initial_state: BaseModel | dict[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        run_timeout_seconds: int | None = None,
        *,
        usage_limits: UsageLimits | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> StreamResult:
        """Start the agent and return at once what is read from it as it happens.

        ``async for chunk in (await agent.stream(client, "text")).text_chunks`` gives the answer as it comes.
        Further keywords are passed to the provider unchanged.

        Raises:
            RuntimeError: Called inside a run.
        """
        refuse_inside_run(f"stream() of agent {self.id!r}")
        starter, text = client_and_payload(client, input)
        check_input(self.id, text)
        handle = await self.invoke(
            starter,
            payload_of(text, kwargs, streaming=True, usage_limits=usage_limits),
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
        )
        return StreamResult(handle, cast(StreamClient, starter))

    async def run_batch(
        self,
        client: Any = None,
        inputs: Sequence[Input] | None = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        return_exceptions: bool = False,
        **options: Any,
    ) -> list[Any]:
        """Run the agent on each input and return the results in that order.

        Args:
            client: The client; the default one if only `inputs` are given.
            inputs: Texts or lists of messages.
            concurrency: How many runs are under way at a time.
            return_exceptions: Give what a run raised as its result. Otherwise the first failure is raised at
                once; runs under way go on, but no more are started.
            options: What `run` takes.

        Raises:
            RunFailedError, WorkflowTimeoutError: As `run`.
            ValueError: An input or `concurrency` is of no use; nothing was started.
        """
        starter, given = client_and_payload(client, inputs)
        return await run_batch(
            self._agent,
            starter,
            given or [],
            concurrency=concurrency,
            return_exceptions=return_exceptions,
            **options,
        )

    def run_sync(  # type: ignore[override]  # as `run` differs
        self, client: Any = None, input: Any = None, **options: Any
    ) -> AgentResult:
        """Return what `run` does, for code that cannot await; `options` are its further arguments."""
        return call_sync(client, lambda client: self.run(client, input, **options))

    def stream_sync(self, client: Any = None, input: Any = None, **options: Any) -> SyncStreamResult:
        """Return what `stream` does, for code that cannot await; `options` are its further arguments."""
        return SyncStreamResult(call_sync(client, lambda client: self.stream(client, input, **options)))

    def run_batch_sync(self, client: Any = None, inputs: Any = None, **options: Any) -> list[Any]:
        """Return what `run_batch` does, for code that cannot await; `options` are its further arguments."""
        return call_sync(client, lambda client: self.run_batch(client, inputs, **options))
