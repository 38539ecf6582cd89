"""Tools: workflows that a model may call, and the decorator that makes them."""

from __future__ import annotations

import copy
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Self, get_origin, is_typeddict, overload

from pydantic import BaseModel

from polos.callers import client_and_payload
from polos.current import refuse_inside_run
from polos.errors import ConfigurationError
from polos.functions import (
    UserFunction,
    check_seconds,
    check_signature,
    is_model,
    is_unresolved,
    members,
    positional_parameters,
    resolved,
    signature_of,
)
from polos.queues import Queue
from polos.registry import get_workflow, id_or_name, register
from polos.workflows import Workflow

if TYPE_CHECKING:
    from polos.engine.context import WorkflowContext

ToolApproval = Literal["always", "none"]
ApprovalRule = ToolApproval | Callable[["WorkflowContext", Any], Any]

_JSON_TYPES = (str, int, float, bool, NoneType, None, Any, object, inspect.Signature.empty)
_JSON_CONTAINERS = (dict, list, tuple)


class Tool(Workflow):
    """A workflow that a model may call; it registers itself.

    `func` takes ``(ctx, payload)``; a subclass may override `_default_execute` instead. `parameters` is the
    JSON schema the model sees, by default that of the function's input model, `name` what it calls the tool
    by, by default its id. Without `is_registered` it is found only by whoever has it. Other keyword arguments
    are ignored.

    With ``approval="always"`` a person is asked before each call, after the hooks at the start; a function
    ``(ctx, input) -> bool`` says for each input whether to ask. What is rejected, or not answered within
    `approval_timeout` seconds (None: it waits for ever), fails the call with an error that the model reads.

    Raises:
        ValueError: The id is empty, or `approval` or `approval_timeout` is of no use.
        TypeError: `func` or `approval` does not take ``(ctx, payload)``, or a hook is not callable.
    """

    def __init__(
        self,
        id: str,
        description: str | None = None,
        parameters: dict[str, Any] | None = None,
        func: UserFunction | None = None,
        queue: str | Queue | dict[str, Any] | None = None,
        on_start: Any = None,
        on_end: Any = None,
        approval: ApprovalRule | None = None,
        *,
        route: str | None = None,
        approval_timeout: float | None = None,
        name: str | None = None,
        is_registered: bool = True,
        **_ignored: Any,
    ) -> None:
        super().__init__(
            id,
            func or self._default_execute,
            description,
            "tool",
            queue=queue,
            on_start=on_start,
            on_end=on_end,
            route=route,
        )
        self.approval = _checked_approval(approval, id)
        self.approval_timeout = check_seconds(approval_timeout, f"approval_timeout of tool {id!r}")
        self._parameters = parameters
        self.name = name or id
        if is_registered:
            register(self)

    async def _default_execute(self, ctx: Any, payload: dict[str, Any] | None = None) -> Any:
        """Do what the tool does; for subclasses that are given no `func`."""
        raise NotImplementedError(f"tool {self.id!r} has no func and does not override _default_execute")

    def with_approval(self, approval: ApprovalRule | None, *, timeout: float | None = None) -> Self:
        """Return a copy for the `tools` of an agent that asks as `approval` says; the tool stays as it is.

        Raises:
            ValueError, TypeError: `approval` or `timeout` is of no use.
        """
        gated = copy.copy(self)
        gated.approval = _checked_approval(approval, self.id)
        gated.approval_timeout = check_seconds(timeout, f"approval_timeout of {self.what}")
        return gated

    async def call(self, ctx: Any, payload: Any = None) -> Any:
        """Return what the function returns, once a person has approved where that is wanted.

        Raises:
            RuntimeError: It was rejected, or nobody answered in time.
        """
        if self.approval not in (None, "none"):
            # A program that only defines tools pays for no engine.
            from polos.engine.approving import Gate, pass_gate  # noqa: PLC0415

            decide = self.approval if callable(self.approval) else None
            await pass_gate(ctx, Gate(self.name, decide, self.approval_timeout), payload)
        return await super().call(ctx, payload)

    def _is_found_by_id(self) -> bool:
        return get_workflow(self.id) is self

    def check_payload(self, payload: object) -> Any:
        """Return `payload` as JSON data to start a run with, as by hand and from workflows.

        Raises:
            ConfigurationError: Another definition is found under this id, and would run in its place.
            ValueError, TypeError: As for any workflow.
        """
        if not self._is_found_by_id():
            raise ConfigurationError(
                f"tool {self.id!r} cannot be started by itself: runs are found by id, and this id is that of "
                "another definition. Agents that have it in tools= can use it; else give it an id of its own"
            )
        return super().check_payload(payload)

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments, as the model sees it."""
        if self._parameters is not None:
            return self._parameters
        if (model := self.payload_schema_class) is not None:
            return model.model_json_schema()
        return {"type": "object", "properties": {}}

    def definition_for_model(self) -> dict[str, Any]:
        """Return name, description and parameters as one flat function definition."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters,
        }

    def to_llm_tool_definition(self) -> dict[str, Any]:
        """Return the definition as chat completions take it, nested under ``function``."""
        nested = self.definition_for_model()
        return {"type": nested.pop("type"), "function": nested}

    def get_tool_type(self) -> str:
        """Return what kind of tool this is, for listings."""
        return "default"

    def get_tool_metadata(self) -> dict[str, Any] | None:
        """Return what listings should show besides, if anything."""
        return None

    async def run(
        self,
        client: Any = None,
        payload: Any = None,
        queue: str | Queue | dict[str, Any] | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 600.0,
        initial_state: BaseModel | dict[str, Any] | None = None,
        *,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Run the tool by hand, as `Workflow.run` does, after checking its input.

        Raises:
            ValueError: The input is missing, invalid, of another model class, or not wanted. Nothing started.
            RunFailedError: The tool failed or was cancelled.
            WorkflowTimeoutError: It did not end in time.
        """
        refuse_inside_run(f"run() of {self.what}")
        starter, payload = client_and_payload(client, payload)
        self._check_input(payload)
        return await super().run(
            starter,
            payload,
            queue=queue,
            concurrency_key=concurrency_key,
            session_id=session_id,
            user_id=user_id,
            timeout=timeout,
            initial_state=initial_state,
            priority=priority,
            idempotency_key=idempotency_key,
        )

    def _check_input(self, payload: object) -> None:
        if not self.has_payload_param and payload is not None:
            raise ValueError(f"tool {self.id!r} takes no input, but was given {type(payload).__name__}")
        model = self.payload_schema_class
        if model is not None and isinstance(payload, BaseModel) and not isinstance(payload, model):
            raise ValueError(f"tool {self.id!r} takes {model.__name__}, not {type(payload).__name__}")
        self.parse_payload(self.check_payload(payload))


@overload
def tool(id: UserFunction, /) -> Tool: ...


@overload
def tool(
    id: str | None = None,
    description: str | None = None,
    parameters: dict[str, Any] | None = None,
    queue: str | Queue | dict[str, Any] | None = None,
    on_start: Any = None,
    on_end: Any = None,
    approval: ApprovalRule | None = None,
    **options: Any,
) -> Callable[[UserFunction], Tool]: ...


def tool(
    id: str | UserFunction | None = None,
    description: str | None = None,
    parameters: dict[str, Any] | None = None,
    queue: str | Queue | dict[str, Any] | None = None,
    on_start: Any = None,
    on_end: Any = None,
    approval: ApprovalRule | None = None,
    **options: Any,
) -> Tool | Callable[[UserFunction], Tool]:
    """Make a function ``(ctx)`` or ``(ctx, input: Model)`` a registered `Tool`.

    Used as ``@tool`` or ``@tool(description="…")``. The id defaults to the function's name, the description
    to its docstring, the parameters to the JSON schema of its input. With ``approval="always"`` a person is
    asked first, with a function ``(ctx, input) -> bool`` where that returns True; see `Tool`. Unknown
    keywords are ignored.

    Raises:
        ValueError: The id is empty, or `approval` is of no use.
        TypeError: The input is not annotated with a model, or the return annotation is not JSON.
    """
    if callable(id):
        return tool()(id)

    def decorate(func: UserFunction) -> Tool:
        name = id_or_name(id, func)
        _check_tool_function(func, name)
        return Tool(
            name,
            description or inspect.getdoc(func),
            parameters,
            func,
            queue,
            on_start,
            on_end,
            approval,
            **options,
        )

    return decorate


def _checked_approval(approval: Any, tool_id: str) -> ApprovalRule | None:
    if callable(approval):
        what = f"the approval function of tool {tool_id!r}"
        if len(positional_parameters(approval, most=2, what=what)) != 2:
            raise TypeError(f"{what} must take (ctx, input)")
    elif approval not in ("always", "none", None):
        raise ValueError(
            f"approval={approval!r} of tool {tool_id!r} cannot be used: give 'always', 'none', None or a "
            "function (ctx, input) that returns True to ask and False to run it"
        )
    rule: ApprovalRule | None = approval
    return rule


def _check_tool_function(func: UserFunction, name: str) -> None:
    parameters = check_signature(func, f"tool {name!r}")
    if len(parameters) == 2:
        annotation = resolved(func, parameters[1].annotation)
        if not (is_model(annotation) or is_unresolved(annotation)):
            raise TypeError(f"the input of tool {name!r} must be annotated with a Pydantic model class")
    returned = resolved(func, signature_of(func).return_annotation)
    if not all(_is_json_type(member) for member in members(returned)):
        raise TypeError(f"tool {name!r} returns {returned!r}: use a Pydantic model or a type that JSON has")


def _is_json_type(member: Any) -> bool:
    if is_model(member) or is_unresolved(member) or is_typeddict(member):
        return True
    kind = get_origin(member) or member
    if isinstance(kind, type) and issubclass(kind, _JSON_CONTAINERS):
        return True
    return kind in (*_JSON_TYPES, Mapping, Sequence, Literal) or isinstance(kind, typing.TypeVar)
