"""Guardrails: functions, or sentences a model judges by, through which every answer of an agent must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, overload

from pydantic import BaseModel, Field

from polos.functions import check_hook_signature
from polos.hooks import HookResult
from polos.types import AgentConfig, Step, ToolCall

GuardrailFunction = Callable[..., Any]
Guardrail = GuardrailFunction | str


class GuardrailContext(BaseModel):
    """What a guardrail looks at: an answer, as the guardrails before it have left it.

    Attributes:
        content: The answer's text, None when it only calls tools.
        tool_calls: The tools it is about to call.
        steps: The iterations of the run before this answer.
    """

    content: Any | None = None
    tool_calls: list[ToolCall] | None = None
    agent_workflow_id: str | None = ""
    agent_run_id: str | None = ""
    session_id: str | None = None
    user_id: str | None = None
    llm_config: AgentConfig
    steps: list[Step] = Field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the context as JSON data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the context that `to_dict` gave."""
        return cls.model_validate(data)


class GuardrailResult(HookResult):
    """What a guardrail decided: to let the answer pass, perhaps changed, or to have another one made.

    Attributes:
        modified_content: The text instead of the answer's, None to leave it.
        modified_tool_calls: The calls instead of the answer's, ``[]`` for none, None to leave them.
        modified_llm_config: How the model is called if the answer has to be made again.
    """

    modified_content: Any | None = None
    modified_tool_calls: list[ToolCall] | None = None
    modified_llm_config: AgentConfig | None = None

    @classmethod
    def continue_with(cls, **modifications: Any) -> Self:
        """Let the answer pass, with any of ``modified_content``, ``modified_tool_calls`` and the others."""
        return super().continue_with(**modifications)

    @classmethod
    def fail(cls, message: str) -> Self:
        """Refuse the answer: the model is told why and asked again, a bounded number of times."""
        return super().fail(message)


@overload
def guardrail(func: GuardrailFunction, /) -> GuardrailFunction: ...


@overload
def guardrail() -> Callable[[GuardrailFunction], GuardrailFunction]: ...


def guardrail(
    func: GuardrailFunction | None = None, /
) -> GuardrailFunction | Callable[[GuardrailFunction], GuardrailFunction]:
    """Mark a function ``(ctx, guardrail_context)`` as a guardrail; as ``@guardrail`` or ``@guardrail()``.

    Raises:
        TypeError: It does not take exactly two arguments.
    """
    return guardrail if func is None else check_hook_signature(func, what="guardrail")


def guardrail_list(guardrails: Any) -> list[Guardrail]:
    """Return the guardrails of an agent, given as None, one of them or a list.

    Raises:
        TypeError: One is neither callable nor a text that says something.
    """
    listed = list(guardrails) if isinstance(guardrails, list | tuple) else [guardrails]
    chosen = [one for one in listed if one is not None]
    for one in chosen:
        if not callable(one) and not (isinstance(one, str) and one.strip()):
            raise TypeError(
                f"guardrails has {one!r}: give a function (ctx, guardrail_context), or a sentence that a "
                "model judges the answers by"
            )
    return chosen


def guardrail_name(one: Guardrail) -> str:
    """Return the name of a guardrail in the journal; those that a model judges by have none of their own."""
    return "judge" if isinstance(one, str) else str(getattr(one, "__name__", type(one).__name__))
