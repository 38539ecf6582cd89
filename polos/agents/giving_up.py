"""Giving up on the answers of a model, as a step: what a person retries is tried as often again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polos.engine.inline import run_inline
from polos.errors import GuardrailError, OutputError, StepExecutionError
from polos.step_names import internal

if TYPE_CHECKING:
    from polos.agents.asking import Loop


async def give_up(loop: Loop, name: str, error: GuardrailError | OutputError) -> None:
    """Raise `error`, as step `name`; return if the run had failed by it and a person lets it go on.

    Raises:
        GuardrailError, OutputError: As given.
    """
    runtime, execution = loop.engine

    async def refuse() -> None:
        if not execution.is_where_it_failed():
            raise error

    try:
        await run_inline(runtime, execution, internal(name), "run", refuse)
    except StepExecutionError as refusal:
        raise type(error)(refusal.reason) from error
