"""`Agent`: a workflow whose body is the model-and-tools loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Any

from pydantic import BaseModel

from polos import serialization
from polos.agents.delegates import tool_of, tool_of_agent
from polos.agents.fallbacks import FallbackModel, model_policy
from polos.agents.handoffs import Handoff, check_handoffs
from polos.agents.inputs import AgentRunConfig, with_prompt, without_prompt  # noqa: F401 - as below
from polos.agents.started import StartedByInput
from polos.agents.stop_conditions import check_conditions
from polos.agents.stream import (  # noqa: F401 - existing programs import all of these from here
    AgentStreamHandle,
    FullEventIterator,
    StreamResult,
    TextChunkIterator,
)
from polos.agents.structured import check_output_schema, schema_of
from polos.agents.usage_limits import UsageLimits, check_usage_limits
from polos.guardrails import guardrail_list
from polos.hooks import hook_list
from polos.mcp.server import MCPServer
from polos.memory.types import CompactionConfig, checked_limits
from polos.models.providers import check_provider
from polos.queues import Queue
from polos.registry import register
from polos.tools.tool import ApprovalRule, Tool
from polos.types import AgentConfig, AgentResult, ToolResult
from polos.workflows import Workflow


class Agent(StartedByInput):
    """An agent: a model, a system prompt and tools, run durably in a loop until it has an answer.

    Args:
        id: Workflow id; also the agent's name in Flower and in the dashboard.
        provider: openai, anthropic, gemini, groq, fireworks, together, azure, ollama or litellm.
        model: Model name as the provider knows it.
        tools: `Tool` and `MCPServer` objects, agents and workflows, which become tools of their names, and
            dicts for tools built into the provider, passed on unchanged.
        provider_base_url: URL of the provider's API, instead of its public one.
        provider_llm_api: OpenAI only: ``responses`` (default) or ``chat_completions``.
        stop_conditions: Checked after each turn that ran tools; the first that is true ends the run.
        output_schema: Pydantic class of the answer, in place of text.
        guardrails: Functions, or sentences that a model judges by, through which every answer must pass.
        guardrail_max_retries: How often an answer that was refused is made again.
        output_retries: How often an answer that does not fit `output_schema` is sent back.
        compaction: When older messages are folded into a summary; by default beyond 80,000 tokens.
        handoffs: Agents that may take over the conversation, given as agents, ids or `Handoff`s.
        route: Celery queue of the fleet that runs it.
        fallback_models: Asked in order when a model gives no answer: ``"provider/model"`` or `FallbackModel`.
        fallback_on_content_filter: Whether they are asked also what a filter, or a model itself, refused.
        model_retries: Further attempts of each model in one turn; ``POLOS_MODEL_MAX_ATTEMPTS`` counts the
            first one too.
        model_timeout_seconds: For a whole model call, instead of the setting.
        chunk_timeout_seconds: For each silence in a streamed answer, instead of the setting.
        usage_limits: How much each run, or all runs of a session, may use; see `UsageLimits`.

    Raises:
        ValueError: id, provider or model is missing or unknown, or names or numbers contradict each other.
        TypeError: A tool, hook, guardrail, handoff or stop condition is not one.
    """

    def __init__(
        self,
        id: str,
        provider: str,
        model: str,
        description: str | None = None,
        system_prompt: str | None = None,
        tools: Sequence[Workflow | MCPServer | dict[str, Any]] | None = None,
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
        compaction: CompactionConfig | dict[str, Any] | None = None,
        stream_to_workflow: bool = False,
        *,
        output_retries: int = 1,
        handoffs: list[Agent | Handoff | str] | None = None,
        route: str | None = None,
        fallback_models: Sequence[str | FallbackModel] | None = None,
        fallback_on_content_filter: bool = False,
        model_retries: int | None = None,
        model_timeout_seconds: float | None = None,
        chunk_timeout_seconds: float | None = None,
        usage_limits: UsageLimits | dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(f"Agent {id!r} needs a model name, not {model!r}")
        super().__init__(
            id,
            self._body,
            description=description,
            workflow_type="agent",
            queue=queue if isinstance(queue, str | Queue | dict) else None,
            output_schema=AgentResult,
            on_start=on_start,
            on_end=on_end,
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
        self.result_output_schema = check_output_schema(id, output_schema)
        self.output_retries = _count(id, "output_retries", output_retries)
        self.on_agent_step_start = hook_list(on_agent_step_start, "on_agent_step_start")
        self.on_agent_step_end = hook_list(on_agent_step_end, "on_agent_step_end")
        self.on_tool_start = hook_list(on_tool_start, "on_tool_start")
        self.on_tool_end = hook_list(on_tool_end, "on_tool_end")
        self.guardrails = guardrail_list(guardrails)
        self.guardrail_max_retries = _count(id, "guardrail_max_retries", guardrail_max_retries)
        self.handoffs = check_handoffs(
            id, handoffs, [tool.name for tool in self.tools if isinstance(tool, Tool)]
        )
        self.compaction = checked_limits(compaction)
        self.stream_to_workflow = stream_to_workflow
        self.model_policy = model_policy(
            id,
            fallback_models=fallback_models,
            fallback_on_content_filter=fallback_on_content_filter,
            model_retries=model_retries,
            model_timeout_seconds=model_timeout_seconds,
            chunk_timeout_seconds=chunk_timeout_seconds,
        )
        self.usage_limits = check_usage_limits(f"Agent {id!r}", usage_limits)
        register(self)

    async def _body(self, ctx: Any, payload: dict[str, Any]) -> AgentResult:
        # A program that only starts agents pays for no engine.
        from polos.agents.loop import run_loop  # noqa: PLC0415

        return await run_loop(self, ctx, payload)

    def input_left(self, claim: Any, settings: Any) -> Any:
        """Return what a run leaves in the memory of its session that fails before its code begins."""
        from polos.agents.remembering import input_left  # noqa: PLC0415 - as `_body`

        return input_left(claim, settings)

    def find_tool(self, name: str) -> Tool | None:
        """Return this agent's own tool that the model calls by that name."""
        return next((tool for tool in self.tools if isinstance(tool, Tool) and tool.name == name), None)

    def find_run_tool(self, name: str) -> Tool | None:
        """Return the tool that runs of that name are of: the agent's own, or of one of its servers."""
        own = (tool if tool.id == name else None for tool in self.tools if isinstance(tool, Tool))
        served = (server.family.member(name) for server in self.servers)
        return next((tool for tool in chain(own, served) if tool is not None), None)

    def find_handoff(self, name: str) -> Handoff | None:
        """Return the handoff that the model asks for when it calls tool `name`."""
        return next((one for one in self.handoffs if one.tool_name == name), None)

    def tool_names(self) -> list[str]:
        """Return the names of everything the model may call, sorted."""
        own = [tool.name for tool in self.tools if isinstance(tool, Tool)]
        return sorted([*own, *(handoff.tool_name for handoff in self.handoffs)])

    def find_speaker(self, agent_id: str | None) -> Agent | None:
        """Return this agent, or the one of that id that it or a successor of it may hand over to."""
        if agent_id in (None, self.id):
            return self
        seen, waiting = {self.id}, deque([self])
        while waiting:
            for handoff in waiting.popleft().handoffs:
                agent = handoff.find_agent()
                if agent is None or agent.id in seen:
                    continue
                if agent.id == agent_id:
                    return agent
                seen.add(agent.id)
                waiting.append(agent)
        return None

    @property
    def servers(self) -> list[MCPServer]:
        """The MCP servers among its tools."""
        return [tool for tool in self.tools if isinstance(tool, MCPServer)]

    def config(self) -> AgentConfig:
        """Return how this agent calls its model."""
        schema = self.result_output_schema
        return AgentConfig(
            name=self.id,
            provider=self.provider,
            model=self.model,
            tools=[
                *(_definition(tool) for tool in self.tools if not isinstance(tool, MCPServer)),
                *(handoff.definition_for_model() for handoff in self.handoffs),
            ],
            system_prompt=self.system_prompt,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            provider_base_url=self.provider_base_url,
            provider_llm_api=self.provider_llm_api,
            output_schema=None if schema is None else schema_of(schema),
            output_schema_name=None if schema is None else schema.__name__,
            guardrail_max_retries=self.guardrail_max_retries,
        )

    def payload_for_hooks(self, payload: Any) -> Any:
        """Return the payload with ``prompt``, the text of the input."""
        return with_prompt(payload)

    def changed_payload(self, payload: Any, changes: dict[str, Any]) -> Any:
        """Return the payload with what a hook changed; a changed ``prompt`` becomes the input."""
        return without_prompt(payload, changes)

    def rebuild_result(self, data: Any, schema: str | None) -> Any:
        """Return the `AgentResult` of a finished run, its answer and tool results as the classes they had."""
        result = super().rebuild_result(data, schema)
        if isinstance(result, AgentResult):
            model = self.result_output_schema
            known = [] if model is None else [model]
            result.result = serialization.rebuild(result.result, result.result_schema, known=known)
            result.tool_results = [_rebuilt(found) for found in result.tool_results]
        return result

    def as_tool(
        self,
        id: str | None = None,
        description: str | None = None,
        approval: ApprovalRule | None = None,
        *,
        input_schema: type[BaseModel] | None = None,
        approval_timeout: float | None = None,
        run_timeout_seconds: int | None = None,
    ) -> Tool:
        """Return this agent as a tool of others: each call is a child run, in the session of its caller.

        The model gives the agent a text as `input`, or what `input_schema` wants, which the agent reads as
        JSON. The call returns the agent's answer, structured output as data; where the agent fails, so does
        the tool. The model calls it `id`, by default as the agent is called.

        Raises:
            ValueError, TypeError: `id`, `approval`, `approval_timeout` or `input_schema` is of no use.
        """
        return tool_of_agent(
            self,
            id=id,
            description=description,
            approval=approval,
            approval_timeout=approval_timeout,
            input_schema=input_schema,
            run_timeout_seconds=run_timeout_seconds,
        )


def _definition(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    return tool.definition_for_model() if isinstance(tool, Tool) else tool


def _checked_tools(agent_id: str, tools: Sequence[Any] | None) -> list[Tool | MCPServer | dict[str, Any]]:
    for tool in tools or ():
        if not isinstance(tool, Workflow | MCPServer | dict):
            raise TypeError(f"Agent {agent_id!r}: {tool!r} is not a tool; decorate the function with @tool")
    checked = [tool if isinstance(tool, dict | MCPServer) else tool_of(tool) for tool in tools or ()]
    names = [tool.name for tool in checked if isinstance(tool, Tool)]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Agent {agent_id!r} has several tools named {doubled}; give each its own id")
    servers = [tool.name for tool in checked if isinstance(tool, MCPServer)]
    if doubled := sorted({name for name in servers if servers.count(name) > 1}):
        raise ValueError(
            f"Agent {agent_id!r} has several MCP servers named {doubled}; give each its own name"
        )
    return checked


def _count(agent_id: str, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"Agent {agent_id!r}: {name} must be a whole number of 0 or more, not {value!r}")
    return value


def _rebuilt(result: ToolResult) -> ToolResult:
    if result.result_schema is None:
        return result
    return result.model_copy(update={"result": serialization.rebuild(result.result, result.result_schema)})
