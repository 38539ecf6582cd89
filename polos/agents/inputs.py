"""What an agent is started with: its input, and the payload that carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from polos.agents.usage_limits import PAYLOAD_KEY, UsageLimits, check_usage_limits

if TYPE_CHECKING:
    from polos.agents.agent import Agent

Input = str | list[dict[str, Any]]


class AgentRunConfig:
    """An agent together with the input of one run; made by `Agent.with_input`."""

    def __init__(
        self,
        agent: Agent,
        input: Input,
        session_id: str | None = None,
        user_id: str | None = None,
        streaming: bool = False,
        initial_state: BaseModel | dict[str, Any] | None = None,
        run_timeout_seconds: int | None = None,
        usage_limits: UsageLimits | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.agent = agent
        self.input = input
        self.session_id = session_id
        self.user_id = user_id
        self.streaming = streaming
        self.initial_state = initial_state
        self.run_timeout_seconds = run_timeout_seconds
        self.usage_limits = check_usage_limits(f"Agent {agent.id!r}", usage_limits)
        self.kwargs = kwargs

    def payload(self) -> dict[str, Any]:
        """Return the agent payload: unknown keywords are options for the provider."""
        options = {name: value for name, value in self.kwargs.items() if name != "provider_kwargs"}
        options.update(self.kwargs.get("provider_kwargs") or {})
        return payload_of(self.input, options, self.streaming, self.usage_limits)


def payload_of(
    given: Any, provider_kwargs: dict[str, Any], streaming: bool, usage_limits: Any = None
) -> dict[str, Any]:
    """Return the agent payload; `usage_limits` are checked where it is."""
    payload = {"input": given, "streaming": streaming, "provider_kwargs": provider_kwargs}
    return payload if usage_limits is None else {**payload, PAYLOAD_KEY: usage_limits}


def check_input(agent_id: str, given: Any) -> None:
    """Raise ValueError unless `given` is a text or a list of messages."""
    if isinstance(given, str):
        return
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        return
    raise ValueError(
        f"The input of agent {agent_id!r} must be a text or a non-empty list of message dicts, not {given!r}"
    )


def text_of(given: Any) -> str:
    """Return the text in an agent's input: itself, or the texts of its messages."""
    if isinstance(given, str):
        return given
    messages = given if isinstance(given, list) else []
    return "\n".join(_texts(message.get("content")) for message in messages if isinstance(message, dict))


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block["text"]) for block in blocks if isinstance(block, dict) and block.get("text"))


def with_prompt(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload as hooks see it: ``prompt`` is the text of the input."""
    return {**payload, "prompt": text_of(payload.get("input"))}


def without_prompt(payload: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a payload with the changes of a hook; a ``prompt`` that it changed becomes the input."""
    changes = dict(changes)
    prompt = changes.pop("prompt", None)
    if prompt is not None and prompt != text_of(payload.get("input")):
        changes["input"] = prompt
    return {**payload, **changes}
