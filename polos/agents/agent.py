"""`Agent`: a workflow whose body is the model-and-tools loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pydantic import BaseModel

from polos import serialization
from polos.agents.stop_conditions import check_conditions
from polos.agents.stream import (  # noqa: F401 - existing programs import all of these from here
    AgentStreamHandle,
    FullEventIterator,
    StreamClient,
    StreamResult,
    TextChunkIterator,
)
from polos.agents.sync_stream import SyncStreamResult
from polos.callers import RunStarter, call_sync, client_and_payload
from polos.current import refuse_inside_run
from polos.errors import ConfigurationError
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.models.providers import check_provider
from polos.queues import Queue
from polos.registry import register
from polos.tools.tool import Tool
from polos.types import AgentConfig, AgentResult, ToolResult
from polos.workflows import Workflow


class AgentRunConfig:
    """An agent together with the input of one run; made by `Agent.with_input`."""

    def __init__(
        self,
        agent: Agent,
        input: str | list[dict[str, Any]],
        session_id: str | None = None,
        user_id: str | None = None,
        streaming: bool = False,
        initial_state: BaseModel | dict[str, Any] | None = None,
        run_timeout_seconds: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.agent = agent
        self.input = input
        self.session_id = session_id
        self.user_id = user_id
        self.streaming = streaming
        self.initial_state = initial_state
        self.run_timeout_seconds = run_timeout_seconds
        self.kwargs = kwargs

    def payload(self) -> dict[str, Any]:
        """Return the agent payload: unknown keywords are options for the provider."""
        options = {name: value for name, value in self.kwargs.items() if name != "provider_kwargs"}
        return _payload(self.input, {**options, **(self.kwargs.get("provider_kwargs") or {})}, self.streaming)


class Agent(Workflow):
    """An agent: a model, a system prompt and tools, run durably in a loop until it has an answer.

    Args:
        id: Workflow id; also the agent's name in Flower and in the dashboard.
        provider: openai, anthropic, gemini, groq, fireworks, together, azure, ollama or litellm.
        model: Model name as the provider knows it.
        tools: `Tool` objects, and dicts for tools built into the provider, passed on unchanged.
        provider_base_url: URL of the provider's API, instead of its public one.
        provider_llm_api: OpenAI only: ``responses`` (default) or ``chat_completions``.
        stop_conditions: Checked after each turn that ran tools; the first that is true ends the run.
        route: Celery queue of the fleet that runs it.

    Raises:
        ValueError: id, provider or model is missing or unknown.
        TypeError: A tool or stop condition is not one.
    """

    def __init__(
        self,
        id: str,
        provider: str,
        model: str,
        description: str | None = None,
        system_prompt: str | None = None,
        tools: list[Tool | dict[str, Any]] | None = None,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        provider_base_url: str | None = None,
        provider_llm_api: str | None = None,
        queue: str | Queue | dict[str, Any] | None = None,
        stop_conditions: list[Any] | None = None,
        output_schema: type[BaseModel] | None = None,
        on_start: Any = None,
        on_end: Any = None,
        on_agent_step_start: Any = None,
        on_agent_step_end: Any = None,
        on_tool_start: Any = None,
        on_tool_end: Any = None,
        guardrails: Any = None,
        guardrail_max_retries: int = 2,
        compaction: Any = None,
        stream_to_workflow: bool = False,
        *,
        route: str | None = None,
    ) -> None:
        _refuse_unsupported(
            id,
            output_schema=output_schema,
            on_start=on_start,
            on_end=on_end,
            on_agent_step_start=on_agent_step_start,
            on_agent_step_end=on_agent_step_end,
            on_tool_start=on_tool_start,
            on_tool_end=on_tool_end,
            guardrails=guardrails,
        )
        if not isinstance(model, str) or not model:
            raise ValueError(f"Agent {id!r} needs a model name, not {model!r}")
        super().__init__(
            id,
            self._body,
            description=description,
            workflow_type="agent",
            queue=queue if isinstance(queue, str | Queue | dict) else None,
            output_schema=AgentResult,
            route=route,
        )
        self.provider = check_provider(provider)
        self.model = model
        self.system_prompt = system_prompt
        self.tools = _checked_tools(id, tools)
        self.temperature = temperature
        self.max_output_tokens = max_output_tokens
        self.provider_base_url = provider_base_url
        self.provider_llm_api = provider_llm_api
        self.stop_conditions = check_conditions(stop_conditions)
        self.result_output_schema = output_schema
        self.guardrail_max_retries = guardrail_max_retries
        self.compaction = compaction
        self.stream_to_workflow = stream_to_workflow
        register(self)

    async def _body(self, ctx: Any, payload: dict[str, Any]) -> AgentResult:
        # A program that only starts agents pays for no engine.
        from polos.agents.loop import run_loop  # noqa: PLC0415

        return await run_loop(self, ctx, payload)

    def find_tool(self, name: str) -> Tool | None:
        """Return this agent's own tool of that name."""
        return next((tool for tool in self.tools if isinstance(tool, Tool) and tool.id == name), None)

    def config(self) -> AgentConfig:
        """Return how this agent calls its model."""
        return AgentConfig(
            name=self.id,
            provider=self.provider,
            model=self.model,
            tools=[tool.definition_for_model() if isinstance(tool, Tool) else tool for tool in self.tools],
            system_prompt=self.system_prompt,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            provider_base_url=self.provider_base_url,
            provider_llm_api=self.provider_llm_api,
            guardrail_max_retries=self.guardrail_max_retries,
        )

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
        _check_input(self.id, payload["input"])
        return serialization.to_data(payload)

    def parse_payload(self, data: Any) -> Any:
        """Return the recorded payload.

        Raises:
            ValueError: It is not one for an agent.
        """
        try:
            return self.check_payload(data)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def rebuild_result(self, data: Any, schema: str | None) -> Any:
        """Return the `AgentResult` of a finished run, its tool results as the classes they had."""
        result = super().rebuild_result(data, schema)
        if isinstance(result, AgentResult):
            result.tool_results = [_rebuilt(found) for found in result.tool_results]
        return result

    def with_input(
        self,
        input: str | list[dict[str, Any]],
        initial_state: BaseModel | dict[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        streaming: bool = False,
        run_timeout_seconds: int | None = None,
        **kwargs: Any,
    ) -> AgentRunConfig:
        """Return this agent with an input, for ``ctx.step.agent_invoke*`` and `batch_agent_invoke`.

        Further keywords are passed to the provider unchanged.
        """
        _check_input(self.id, input)
        check_labels(session_id=session_id, user_id=user_id)
        return AgentRunConfig(
            self,
            input,
            session_id=session_id,
            user_id=user_id,
            streaming=streaming,
            initial_state=initial_state,
            run_timeout_seconds=run_timeout_seconds,
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
        **kwargs: Any,
    ) -> AgentResult:
        """Run the agent to its answer; ``await agent.run("text")`` uses the default client.

        `timeout` is in seconds, None for no limit. Further keywords (``temperature``, ``thinking``,
        ``reasoning_effort``, …) are passed to the provider unchanged.

        Raises:
            RunFailedError: The run failed or was cancelled.
            WorkflowTimeoutError: It did not end in time; it may still be going.
            RuntimeError: Called inside a run, where ``ctx.step.agent_invoke_and_wait`` must be used.
        """
        refuse_inside_run(f"run() of agent {self.id!r}")
        starter, text = client_and_payload(client, input)
        _check_input(self.id, text)
        result: AgentResult = await super().run(
            starter,
            _payload(text, kwargs, streaming=False),
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
        _check_input(self.id, text)
        handle = await self.invoke(
            starter,
            _payload(text, kwargs, streaming=True),
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
        )
        return StreamResult(handle, cast(StreamClient, starter))

    def run_sync(  # type: ignore[override]  # as `run` differs
        self, client: Any = None, input: Any = None, **options: Any
    ) -> AgentResult:
        """Return what `run` does, for code that cannot await; `options` are its further arguments."""
        return call_sync(client, lambda client: self.run(client, input, **options))

    def stream_sync(self, client: Any = None, input: Any = None, **options: Any) -> SyncStreamResult:
        """Return what `stream` does, for code that cannot await; `options` are its further arguments."""
        return SyncStreamResult(call_sync(client, lambda client: self.stream(client, input, **options)))


async def batch_agent_invoke(client: RunStarter, agents: list[AgentRunConfig]) -> list[ExecutionHandle]:
    """Start a run of each agent, each in its own session; return the handles in order.

    Raises:
        RuntimeError: Called inside a run.
    """
    refuse_inside_run("batch_agent_invoke()")
    return [
        await config.agent.invoke(
            client,
            config.payload(),
            session_id=config.session_id,
            user_id=config.user_id,
            initial_state=config.initial_state,
            run_timeout_seconds=config.run_timeout_seconds,
        )
        for config in agents
    ]


def _payload(given: Any, provider_kwargs: dict[str, Any], streaming: bool) -> dict[str, Any]:
    return {"input": given, "streaming": streaming, "provider_kwargs": provider_kwargs}


def _check_input(agent_id: str, given: Any) -> None:
    if isinstance(given, str):
        return
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        return
    raise ValueError(
        f"The input of agent {agent_id!r} must be a text or a non-empty list of message dicts, not {given!r}"
    )


def _checked_tools(agent_id: str, tools: list[Any] | None) -> list[Tool | dict[str, Any]]:
    checked = list(tools or [])
    for tool in checked:
        if not isinstance(tool, Tool | dict):
            raise TypeError(f"Agent {agent_id!r}: {tool!r} is not a tool; decorate the function with @tool")
    names = [tool.id for tool in checked if isinstance(tool, Tool)]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Agent {agent_id!r} has several tools named {doubled}; give each its own id")
    return checked


def _refuse_unsupported(agent_id: str, **options: Callable[..., Any] | Any) -> None:
    for name, value in options.items():
        if value:
            raise ConfigurationError(
                f"Agent {agent_id!r}: {name}= is not supported by this version of polos; leave it out"
            )


def _rebuilt(result: ToolResult) -> ToolResult:
    if result.result_schema is None:
        return result
    return result.model_copy(update={"result": serialization.rebuild(result.result, result.result_schema)})
