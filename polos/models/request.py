"""What goes to a model and what comes back, in one form for every provider.

Both records survive a round trip through JSON, so they can be journaled as they are.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from polos.types import ToolCall, Usage

Item = dict[str, Any]

Chunk = str | ToolCall
"""A piece of a streamed answer: some of its text, never empty, or one of its tool calls, complete."""


class ModelRequest(BaseModel):
    """One model call.

    `messages` is the conversation without the system prompt, as canonical items:
    ``{"role", "content"}``, ``{"type": "function_call", "name", "call_id", "arguments"}``,
    ``{"type": "function_call_output", "call_id", "output", "is_error"?}`` and what earlier
    answers left in `ModelAnswer.raw_output`. Content may be text or a list of blocks in the style of
    OpenAI Responses, chat completions or Anthropic.

    Attributes:
        provider: One of `polos.models.providers.PROVIDERS`, in any case.
        tools: ``{"type": "function", "name", "description", "parameters"}``; any other dict is a
            provider's built-in tool and goes out unchanged.
        provider_llm_api: OpenAI only: ``responses`` (default) or ``chat_completions``.
        provider_kwargs: Fields of the provider's own request, merged into it last, so they win.
            ``extra_headers``, ``api_key``, ``base_url`` and ``api_version`` configure the call instead.
        output_schema: JSON schema the answer's text should follow.
        idempotency_key: Sent as ``Idempotency-Key``, so a provider that knows it charges a repeat once.
        timeout_seconds: For the whole call.
        chunk_timeout_seconds: For each silence in a streamed answer, once it has begun.
    """

    model_config = ConfigDict(frozen=True)

    provider: str
    model: str
    messages: list[Item]
    system_prompt: str | None = None
    tools: list[Item] = Field(default_factory=list)
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    provider_base_url: str | None = None
    provider_llm_api: str | None = None
    provider_kwargs: dict[str, Any] = Field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    output_schema_name: str | None = None
    idempotency_key: str | None = None
    timeout_seconds: float = 600.0
    chunk_timeout_seconds: float = 120.0


class ModelAnswer(BaseModel):
    """What a model said.

    Attributes:
        content: Its text, or None when it only called tools.
        tool_calls: Each has a ``call_id`` that is unique in the conversation, and JSON arguments.
        raw_output: Canonical items to append to the conversation, including the reasoning the
            provider wants to see again in the next call of the same run.
        stop_reason: ``stop``, ``tool_calls``, ``length`` or ``content_filter`` where the provider says, and
            Anthropic's ``pause_turn``.
        refusal: Why the model declined, in its words; such an answer is raised as an error.
        model: The name the provider answered with.
        provider: Who was asked: one of `polos.models.providers.PROVIDERS`.
    """

    model_config = ConfigDict(frozen=True)

    content: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    usage: Usage = Field(default_factory=Usage)
    raw_output: list[Item] = Field(default_factory=list)
    stop_reason: str | None = None
    refusal: str | None = Field(default=None, exclude=True)
    model: str | None = None
    provider: str | None = None
