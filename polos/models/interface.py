"""What a provider of the user's own is: a class with `generate`, registered under a name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from polos.models.providers import add_provider

ProviderT = TypeVar("ProviderT", bound="type[LLMProvider]")


@dataclass
class LLMResponse:
    """What a provider answered.

    Attributes:
        content: Its text.
        usage: ``{"input_tokens", "output_tokens", "total_tokens"?, "cache_read_input_tokens"?,
            "cache_creation_input_tokens"?, "cost"?}``; the cost in US dollars.
        tool_calls: ``{"call_id", "id", "type": "function", "function": {"name", "arguments"}}``, the
            arguments as JSON text.
        raw_output: The messages that were sent and the assistant's. Only reasoning items
            (``{"type": "reasoning", …}``) are read from it; the conversation itself is polos's.
        model: The model that answered.
        stop_reason: ``stop``, ``tool_calls``, ``length`` or ``content_filter``.
    """

    content: str | None = None
    usage: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    raw_output: list[dict[str, Any]] | None = None
    model: str | None = None
    stop_reason: str | None = None


class LLMProvider(ABC):
    """A provider of models. One object serves all calls of an event loop with the same base URL.

    An agent's `provider_base_url` is given to the class as ``base_url=``, its `provider_llm_api` as
    ``llm_api=``; neither where the agent has none.
    """

    @abstractmethod
    async def generate(
        self,
        messages: list[dict[str, Any]],
        model: str,
        tools: list[dict[str, Any]] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        agent_config: dict[str, Any] | None = None,
        tool_results: list[dict[str, Any]] | None = None,
        output_schema: dict[str, Any] | None = None,
        output_schema_name: str | None = None,
        **kwargs: Any,
    ) -> LLMResponse:
        """Answer one call, in one attempt: polos repeats what can be repeated, and records that it does.

        Args:
            messages: The conversation as `convert_history_messages` returned it, without the system prompt.
            model: As the agent names it.
            tools: ``{"type": "function", "name", "description", "parameters"}``.
            temperature: As the agent has it, and so on.
            max_tokens: Most tokens of the answer.
            top_p: Nucleus sampling.
            agent_config: The agent's fields, ``system_prompt`` among them.
            tool_results: Outputs of the tools the last answer called:
                ``{"type": "function_call_output", "call_id", "output", "is_error"?}``. They come after
                `messages`.
            output_schema: JSON schema of the answer.
            output_schema_name: Its name.
            kwargs: Options of the run.

        Raises:
            ModelError: As it should be recorded. Errors of HTTP clients are understood too: a
                ``status_code``, a ``response`` with Retry-After, connections that fail. Anything else
                fails the call for good.
        """

    async def stream(
        self, messages: list[dict[str, Any]], model: str, **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the answer in pieces; the arguments are those of `generate`.

        Each is ``{"type", "data"}``: ``text_delta`` with ``{"content"}``, ``tool_call`` with
        ``{"tool_call"}``, at the end ``done`` with ``{"content"?, "usage", "model", "stop_reason",
        "raw_output"?}``, or ``error`` with ``{"error"}``. By default the answer of `generate` in one piece.
        """
        answer = await self.generate(messages, model, **options)
        if answer.content:
            yield {"type": "text_delta", "data": {"content": answer.content}}
        for call in answer.tool_calls or ():
            yield {"type": "tool_call", "data": {"tool_call": call}}
        told = {"content": answer.content, "usage": answer.usage, "model": answer.model}
        ending = {"stop_reason": answer.stop_reason, "raw_output": answer.raw_output}
        yield {"type": "done", "data": {**told, **ending}}

    def convert_history_messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a conversation in the provider's own form.

        Items are ``{"role", "content"}``, ``{"type": "function_call", "name", "call_id", "arguments"}`` and
        ``{"type": "function_call_output", "call_id", "output"}``.
        """
        return messages


def register_provider(name: str) -> Callable[[ProviderT], ProviderT]:
    """Make a class the provider called `name`, for ``Agent(provider=name)``.

    Register it in a module that is imported before the agents that use it, in workers too.

    Raises:
        ValueError: The name is empty, built in, or another class's.
        TypeError: What is registered is no subclass of `LLMProvider`.
    """

    def register(provider: ProviderT) -> ProviderT:
        if not (isinstance(provider, type) and issubclass(provider, LLMProvider)):
            raise TypeError(f"Provider {name!r} must be a subclass of LLMProvider, not {provider!r}")
        add_provider(name, provider)
        return provider

    return register
