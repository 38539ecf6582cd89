"""The parts of a provider's request that are the same whichever way it goes out."""

from __future__ import annotations

from polos.models.attempt import Attempt
from polos.models.catalog import is_reasoning_model, litellm_provider
from polos.models.connections import Body
from polos.models.messages import chat_messages, chat_tools, responses_tools
from polos.models.providers import Wire
from polos.models.request import Item, ModelRequest

# They have a model go on thinking where it left off; most others refuse the field.
_WANT_REASONING = ("deepseek", "fireworks_ai", "moonshot")
_LIMIT_OPTIONS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def may_think_aloud(attempt: Attempt) -> bool:
    """Whether an open model may answer, whose server leaves reasoning in the text."""
    if attempt.provider.wire is Wire.LITELLM:
        return litellm_provider(attempt.litellm_model) not in ("anthropic", "gemini")
    return attempt.provider.wire is Wire.CHAT or attempt.provider.name == "ollama"


def responses_fields(attempt: Attempt) -> Body:
    """Return the fields of a request to OpenAI Responses, but for model and input."""
    request, options = attempt.request, dict(attempt.options)
    schema = attempt.schema_fields(responses=True)
    if "max_tokens" in options:
        options.setdefault("max_output_tokens", options.pop("max_tokens"))
    fields: Body = {
        "instructions": attempt.system_prompt(schema),
        "tools": responses_tools(request.tools) or None,
        "max_output_tokens": request.max_output_tokens,
        # Lets reasoning go back in the next call even where the provider may not store it.
        "include": ["reasoning.encrypted_content"] if is_reasoning_model(request.model) else None,
        **schema,
        **sampling(request),
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return merged(present, options)


def messages(attempt: Attempt, schema_fields: Item) -> list[Item]:
    """Return the conversation as chat messages."""
    return chat_messages(
        attempt.request.messages,
        system_prompt=attempt.system_prompt(schema_fields),
        with_reasoning=litellm_provider(attempt.litellm_model) in _WANT_REASONING,
        tool_images=attempt.provider.takes_tool_images,
    )


def sampling(request: ModelRequest) -> Body:
    """Return how the agent wants tokens chosen."""
    options = {"temperature": request.temperature, "top_p": request.top_p}
    return {name: value for name, value in options.items() if value is not None}


def token_limit(attempt: Attempt) -> Body:
    """Return the agent's limit, unless the options name one; LiteLLM knows each model's word for it."""
    limit = attempt.request.max_output_tokens
    is_overridden = any(name in attempt.options for name in _LIMIT_OPTIONS)
    return {} if limit is None or is_overridden else {"max_tokens": limit}


def split_tools(tools: list[Item]) -> tuple[list[Item], list[Item]]:
    """Return the function tools in chat form, and the provider's built-in tools unchanged."""
    functions = [tool for tool in tools if tool.get("type") == "function"]
    return chat_tools(functions), [tool for tool in tools if tool.get("type") != "function"]


def merged(body: Body, extras: Body) -> Body:
    """Return `body` with `extras` winning; objects on both sides are merged one level deep."""
    both = {**body, **extras}
    for name in body.keys() & extras.keys():
        if isinstance(body[name], dict) and isinstance(extras[name], dict):
            both[name] = {**body[name], **extras[name]}
    return both
