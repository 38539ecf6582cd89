"""The records user code reads: usage, tool calls and results, steps, agent results, batch items.

All are Pydantic models; their field names and defaults are part of the public API.
"""

import sys
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

Number = TypeVar("Number", int, float)


class Usage(BaseModel):
    """Tokens of one or more model calls.

    Attributes:
        input_tokens: All of the input, what was read from a cache or written to one included.
        cost: US dollars, None where the price of no call is known. In a sum, calls of unknown price add
            nothing.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cost: float | None = None

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cache_read_input_tokens=_add(self.cache_read_input_tokens, other.cache_read_input_tokens),
            cache_creation_input_tokens=_add(
                self.cache_creation_input_tokens, other.cache_creation_input_tokens
            ),
            cost=_add(self.cost, other.cost),
        )


def _add(left: Number | None, right: Number | None) -> Number | None:
    return right if left is None else left + (right or 0)


class ToolCallFunction(BaseModel):
    """Name and arguments of a tool call; ``arguments`` is a JSON string."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A model's request to run a tool. ``call_id`` is echoed to the provider with the output."""

    id: str
    type: str = "function"
    function: ToolCallFunction
    call_id: str | None = None


class ToolResult(BaseModel):
    """What one tool call produced. ``status`` is ``completed`` or ``failed``."""

    tool_name: str
    status: str
    result: Any | None = None
    result_schema: str | None = None
    error: str | None = None
    tool_call_id: str
    tool_call_call_id: str


class Step(BaseModel):
    """One iteration of the agent loop: a model answer and the tools it called."""

    step: int
    content: Any | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_results: list[ToolResult] = Field(default_factory=list)
    usage: Usage | None = None
    raw_output: Any | None = None


class AgentResult(BaseModel):
    """What an agent run returns.

    Also readable as a mapping (``result["result"]``, ``result.get("usage")``), which many programs do.
    ``stop_reason`` is ``completed``, ``stop_condition`` or ``max_steps``; ``agent_id`` names who spoke last.
    """

    agent_run_id: str
    result: Any | None = None
    result_schema: str | None = None
    tool_results: list[ToolResult] = Field(default_factory=list)
    total_steps: int
    usage: Usage
    stop_reason: str | None = None
    agent_id: str | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """Return the field named `key`, or `default` when there is none."""
        return getattr(self, key) if key in self else default

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields


class AgentConfig(BaseModel):
    """How an agent calls its model, as hooks and guardrails see it."""

    name: str
    provider: str
    model: str
    tools: list[dict[str, Any]] = Field(default_factory=list)
    system_prompt: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    provider_base_url: str | None = None
    provider_llm_api: str | None = None
    provider_kwargs: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    output_schema_name: str | None = None
    guardrail_max_retries: int | None = None


class BatchWorkflowInput(BaseModel):
    """One run to start in a batch."""

    id: str
    payload: Any | None = None
    initial_state: InstanceOf[BaseModel] | dict[str, Any] | None = None  # a dict is not made a model
    run_timeout_seconds: int | None = None
    queue: str | None = None
    concurrency_key: str | None = None
    priority: int | None = None


class BatchStepResult(BaseModel):
    """How one run of a batch ended."""

    model_config = ConfigDict(extra="ignore")

    workflow_id: str
    success: bool
    result: Any | None = None
    error: str | None = None


def __getattr__(name: str) -> Any:
    if name == "types":  # programs written for another layout say polos.types.types
        return sys.modules[f"{__name__}.types"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
