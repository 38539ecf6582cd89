"""The hooks of a definition around its body, each a durable step: a replay runs none again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from polos import serialization
from polos.engine.calling import RetryPolicy, call_in_step
from polos.engine.context import WorkflowContext
from polos.engine.execution import Execution
from polos.engine.inline import run_inline
from polos.engine.runtime import Definition, Runtime
from polos.errors import StepExecutionError
from polos.hooks import HookAction, HookContext, HookResult
from polos.inputs import problems
from polos.step_names import internal

RETRIES = RetryPolicy(max_retries=2, base_delay=1.0, max_delay=10.0)


async def call_with_hooks(
    runtime: Runtime, execution: Execution, definition: Definition, ctx: WorkflowContext, payload: Any
) -> Any:
    """Return what the body returns, with the hooks of the definition before and after it.

    Raises:
        StepExecutionError: A hook refused, or failed for good.
    """
    hooks = _Hooks(runtime, execution, definition, ctx)
    payload = await hooks.before(payload)
    return await hooks.after(payload, await definition.call(ctx, payload))


class _Hooks:
    """The hooks of one run."""

    def __init__(
        self, runtime: Runtime, execution: Execution, definition: Definition, ctx: WorkflowContext
    ) -> None:
        self._runtime = runtime
        self._execution = execution
        self._definition = definition
        self._ctx = ctx

    async def before(self, payload: Any) -> Any:
        """Return the payload, as the hooks at the start have changed it."""
        for name, function in named("on_start", getattr(self._definition, "on_start", ())):
            seen = HookContext(
                workflow_id=self._definition.id,
                current_payload=self._definition.payload_for_hooks(copy.deepcopy(payload)),
            )
            result = await self._decided(name, function, seen)
            if result.modified_payload is not None:
                payload = self._changed_payload(name, payload, result.modified_payload)
        return payload

    async def after(self, payload: Any, output: Any) -> Any:
        """Return the output, as the hooks at the end have changed it."""
        for name, function in named("on_end", getattr(self._definition, "on_end", ())):
            seen = HookContext(
                workflow_id=self._definition.id,
                current_payload=self._definition.payload_for_hooks(copy.deepcopy(payload)),
                current_output=copy.deepcopy(output),
            )
            result = await self._decided(name, function, seen)
            if result.modified_output is not None:
                output = changed_output(name, output, result.modified_output)
        return output

    async def _decided(self, name: str, function: Callable[..., Any], seen: HookContext) -> HookResult:
        return await decide(self._runtime, self._execution, self._ctx, name, function, seen)

    def _changed_payload(self, name: str, payload: Any, changes: dict[str, Any]) -> Any:
        try:
            return self._definition.parse_payload(self._definition.changed_payload(payload, changes))
        except ValueError as error:
            problem = f"Hook {name!r} changed the payload to one of no use: {error}"
            raise StepExecutionError(problem) from error


async def decide(
    runtime: Runtime,
    execution: Execution,
    ctx: WorkflowContext,
    name: str,
    function: Callable[..., Any],
    seen: HookContext,
) -> HookResult:
    """Return what a hook decides about `seen`, as step `name`.

    Raises:
        StepExecutionError: It refused, or failed for good.
    """

    async def call() -> HookResult:
        result = await call_in_step(function, (ctx, seen), {})
        if not isinstance(result, HookResult):
            raise StepExecutionError(
                f"Hook {name!r} must return a HookResult, such as HookResult.continue_with(), "
                f"not {type(result).__name__}"
            )
        return result

    value = await run_inline(runtime, execution, internal(name), "run", call, retries=RETRIES)
    result = HookResult.model_validate(serialization.to_data(value))
    if result.action is HookAction.FAIL:
        raise StepExecutionError(result.error_message or f"Hook {name!r} failed the run")
    return result


def named(point: str, functions: Sequence[Callable[..., Any]]) -> list[tuple[str, Callable[..., Any]]]:
    """Return the hooks of a point with the names of their steps."""
    return [
        (f"{point}.{getattr(function, '__name__', type(function).__name__)}.{place}", function)
        for place, function in enumerate(functions)
    ]


def merged(value: Any, changes: Any) -> Any:
    """Return changes merged into a dict or model, as JSON data; anything else they replace."""
    data = serialization.to_data(value)
    return {**data, **changes} if isinstance(data, dict) and isinstance(changes, dict) else changes


def changed_output(name: str, output: Any, changes: Any) -> Any:
    """Return an output with a hook's changes: merged, if both are dicts or models; else they replace it.

    Raises:
        StepExecutionError: It is no longer of use.
    """
    changed = merged(output, changes)
    if not isinstance(output, BaseModel) or not isinstance(changes, dict):
        return changed
    try:
        return serialization.validate(type(output), changed)
    except ValidationError as error:
        raise StepExecutionError(
            f"Hook {name!r} changed the output to one of no use: {problems(error)}"
        ) from error
