"""Hooks: functions that see, change or refuse what goes into a run and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Self, overload

from pydantic import BaseModel, Field

from polos.functions import check_hook_signature
from polos.types import AgentConfig, Step

HookFunction = Callable[..., Any]


class HookAction(str, Enum):  # noqa: UP042 - equal to its plain string, as programs compare it
    """What a hook decides."""

    CONTINUE = "continue"
    FAIL = "fail"


class HookContext(BaseModel):
    """What a hook looks at.

    Attributes:
        current_payload: What the function is given; a hook gets a copy.
        current_output: What it returned, at its end.
    """

    workflow_id: str
    session_id: str | None = None
    user_id: str | None = None
    agent_config: AgentConfig | None = None
    steps: list[Step] = Field(default_factory=list)
    current_tool: str | None = None
    current_payload: Any = None
    current_output: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the context as JSON data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the context that `to_dict` gave."""
        return cls.model_validate(data)


class HookResult(BaseModel):
    """What a hook decided: to go on, perhaps with something changed, or to fail the run."""

    action: HookAction = HookAction.CONTINUE
    modified_payload: dict[str, Any] | None = None
    modified_output: Any | None = None
    error_message: str | None = None

    @classmethod
    def continue_with(cls, **modifications: Any) -> Self:
        """Go on with changes, ``modified_payload`` or ``modified_output``; a dict is merged into a dict."""
        return cls(action=HookAction.CONTINUE, **modifications)

    @classmethod
    def fail(cls, message: str) -> Self:
        """Fail the run with a message."""
        return cls(action=HookAction.FAIL, error_message=message)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the result that `to_dict` gave."""
        return cls.model_validate(data)


@overload
def hook(func: HookFunction, /) -> HookFunction: ...


@overload
def hook() -> Callable[[HookFunction], HookFunction]: ...


def hook(func: HookFunction | None = None, /) -> HookFunction | Callable[[HookFunction], HookFunction]:
    """Mark a function ``(ctx, hook_context)`` as a hook; used as ``@hook`` or ``@hook()``.

    Raises:
        TypeError: It does not take exactly two arguments.
    """
    return hook if func is None else check_hook_signature(func)


def hook_list(hooks: Any, argument: str) -> list[Callable[..., Any]]:
    """Return the hooks of one point, given as None, one callable or a list of them.

    Raises:
        TypeError: One is not callable.
    """
    listed = list(hooks) if isinstance(hooks, list | tuple) else [] if hooks is None else [hooks]
    for hook in listed:
        if not callable(hook):
            raise TypeError(
                f"{argument} has {hook!r}, which is not callable: give a function, or a list of them"
            )
    return listed
