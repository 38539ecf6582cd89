"""Steps that the coordinator executes itself: one call of a function, one commit, no message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from polos import serialization
from polos.current import at_place
from polos.engine import telling
from polos.engine.execution import Execution
from polos.engine.outcomes import back_off, can_never_succeed, completed, error_text, exits_as_errors, failed
from polos.engine.runtime import Runtime
from polos.errors import PolosError, SerializationError, StepExecutionError, ValueTooLargeError
from polos.faultpoints import faultpoint
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome, StepRow, record_step
from polos.step_names import shown


class Retries(Protocol):
    """How often and after which pauses a step is tried again; pauses in seconds."""

    max_retries: int
    base_delay: float
    max_delay: float


class NoRetries:
    """A step that is tried once."""

    max_retries = 0
    base_delay = 0.0
    max_delay = 0.0


async def run_inline(
    runtime: Runtime,
    execution: Execution,
    name: str,
    kind: str,
    call: Callable[[], Awaitable[Any]],
    *,
    retries: Retries | None = None,
) -> Any:
    """Return the recorded value of step `name`, or call `call`, record what it returns, and return that.

    Raises:
        StepExecutionError: The step failed, now or on record.
    """
    errors: list[BaseException] = []

    async def begin(position: int) -> None:
        began = time.monotonic()
        telling.step_started(runtime, execution, name)
        outcome, tries, error = await _attempts(runtime, execution, name, call, retries or NoRetries())
        if error is not None:
            errors.append(error)
        took = time.monotonic() - began
        number = await _record(execution, name, kind, outcome, position=position, tries=tries, seconds=took)
        telling.step_finished(runtime, execution, name, outcome, number)

    row = await execution.outcome(name, kind, begin)
    if errors:
        raise StepExecutionError(row.error or "step failed") from errors[0]
    return serialization.rebuild(value_of(row), row.output_schema)


def value_of(row: StepRow) -> Any:
    """Return the plain value of an outcome.

    Raises:
        StepExecutionError: The outcome is a failure.
    """
    if row.status == StepStatus.FAILED:
        raise StepExecutionError(row.error or "step failed")
    return None if row.output is None else serialization.loads(row.output)


async def _attempts(
    runtime: Runtime, execution: Execution, name: str, call: Callable[[], Awaitable[Any]], retries: Retries
) -> tuple[Outcome, int, BaseException | None]:
    """Call until it succeeds or the retries are used up; return the outcome, the tries and the last error."""
    failures: list[dict[str, Any]] = []
    while True:
        await runtime.may_start()
        execution.check_open()
        faultpoint("before_execute", f"step {name}")
        try:
            with exits_as_errors(), at_place(execution.run_id, shown(name)):
                value = await call()
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            execution.check_open()
            if runtime.draining:  # what is raised while the process closes says nothing about the step
                await execution.held_back()
            failures.append({"try": len(failures) + 1, "error": error_text(error), "at": time.time()})
            if len(failures) > retries.max_retries or can_never_succeed(error):
                return failed(_message(error, retries), failures=_text(failures)), len(failures), error
            await asyncio.sleep(
                back_off(len(failures) - 1, base_seconds=retries.base_delay, max_seconds=retries.max_delay)
            )
            continue
        execution.check_open()
        faultpoint("after_execute", f"step {name}")
        return (*_stored(runtime, name, value, failures), None)


def _stored(runtime: Runtime, name: str, value: Any, failures: list[dict[str, Any]]) -> tuple[Outcome, int]:
    tries = len(failures) + 1
    try:
        outcome = completed(
            value, runtime.settings, what=f"result of step {shown(name)!r}", failures=_text(failures)
        )
    except (SerializationError, ValueTooLargeError) as error:
        return failed(str(error), failures=_text(failures)), tries
    return outcome, tries


def _message(error: BaseException, retries: Retries) -> str:
    if isinstance(error, PolosError) and not error.retryable:
        return error_text(error)
    return f"Step execution failed after {retries.max_retries} retries: {error_text(error)}"


def _text(failures: list[dict[str, Any]]) -> str | None:
    return serialization.dumps(failures) if failures else None


async def _record(
    execution: Execution,
    name: str,
    kind: str,
    outcome: Outcome,
    *,
    position: int,
    tries: int,
    seconds: float,
) -> int | None:
    """Store an outcome; return the number of its event, None where it has none."""
    claim = execution.claim
    seq, number = await execution.answer(
        record_step(
            claim.id,
            claim.attempt,
            name,
            kind,
            outcome,
            position=position,
            tries=tries,
            worker=execution.worker_id,
            seconds=seconds,
        )
    )
    faultpoint("after_record", f"step {name}")
    execution.record(
        StepRow(
            name,
            kind,
            position,
            seq,
            outcome.status.value,
            tries,
            outcome.output,
            outcome.output_schema,
            outcome.error,
            None,
        )
    )
    return None if number is None else int(number)
