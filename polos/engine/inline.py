"""Steps that the coordinator executes itself: one call of a function, one commit, no message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from polos import serialization
from polos.current import at_place
from polos.engine import telling
from polos.engine.execution import Execution
from polos.engine.outcomes import back_off, can_never_succeed, completed, error_text, exits_as_errors, failed
from polos.engine.runtime import Runtime
from polos.engine.tasks import DurableFuture
from polos.errors import PolosError, SerializationError, StepExecutionError, ValueTooLargeError
from polos.faultpoints import faultpoint
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome, StepRow, begin_step, record_step, retry_step_later
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
    at_most_once: bool = False,
) -> Any:
    """Return the recorded value of step `name`, or call `call`, record what it returns, and return that.

    With `at_most_once`, a row is written before the call, and a step that was interrupted fails.

    Raises:
        StepExecutionError: The step failed, now or on record.
    """
    errors: list[BaseException] = []

    async def begin(position: int) -> None:
        earlier = execution.known(name)
        if at_most_once and earlier is not None:
            await record_failure(runtime, execution, name, kind, _interrupted(name), position=position)
            return
        if at_most_once:
            await _begin(runtime, execution, name, position)
        began = runtime.clock.monotonic()
        if earlier is None:
            telling.step_started(runtime, execution, name)
        tries = _Tries(runtime, execution, name, position, earlier, retries or NoRetries())
        outcome, count, error = await tries.made(call)
        if error is not None:
            errors.append(error)
        took = runtime.clock.monotonic() - began
        await _settle(runtime, execution, name, kind, outcome, position=position, tries=count, seconds=took)

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


async def record_failure(
    runtime: Runtime, execution: Execution, name: str, kind: str, problem: str, *, position: int
) -> None:
    """Record that a step failed before anything was done."""
    await _settle(runtime, execution, name, kind, failed(problem), position=position, tries=0)


async def _settle(
    runtime: Runtime,
    execution: Execution,
    name: str,
    kind: str,
    outcome: Outcome,
    *,
    position: int,
    tries: int,
    seconds: float = 0.0,
) -> None:
    number = await _record(execution, name, kind, outcome, position=position, tries=tries, seconds=seconds)
    telling.step_finished(runtime, execution, name, outcome, number)


async def _begin(runtime: Runtime, execution: Execution, name: str, position: int) -> None:
    await runtime.may_start()
    claim = execution.claim
    seq = await execution.commit(begin_step(claim.id, claim.attempt, name, position=position))
    execution.begun(StepRow(name, "run", position, None, StepStatus.RUNNING.value, 0, None, None, None, None))
    execution.scheduled(seq)


def _interrupted(name: str) -> str:
    return (
        f"Step {shown(name)!r} was interrupted when its worker died: it may or may not have happened, "
        "and at_most_once forbids to try again"
    )


class _Tries:
    """The attempts of one step: those in this process, and before them those on record."""

    def __init__(
        self,
        runtime: Runtime,
        execution: Execution,
        name: str,
        position: int,
        earlier: StepRow | None,
        retries: Retries,
    ) -> None:
        self._runtime = runtime
        self._execution = execution
        self._name = name
        self._position = position
        self._retries = retries
        recorded = earlier.failures if earlier is not None else None
        self._failures: list[dict[str, Any]] = [] if recorded is None else serialization.loads(recorded)

    async def made(self, call: Callable[[], Awaitable[Any]]) -> tuple[Outcome, int, BaseException | None]:
        """Call until it succeeds or no retry is left; return the outcome, the tries and the last error."""
        if (remaining := self._execution.alarms.seconds_until(self._name)) is not None:
            await self._wait(remaining)
        while True:
            error, value = await self._one(call)
            if error is None:
                return (*_stored(self._runtime, self._name, value, self._failures), None)
            failures, retries = self._failures, self._retries
            at = self._runtime.clock.time()
            failures.append({"try": len(failures) + 1, "error": error_text(error), "at": at})
            if len(failures) > retries.max_retries or can_never_succeed(error):
                return failed(_message(error, retries), failures=_text(failures)), len(failures), error
            await self._pause(
                back_off(len(failures) - 1, base_seconds=retries.base_delay, max_seconds=retries.max_delay)
            )

    async def _one(self, call: Callable[[], Awaitable[Any]]) -> tuple[Exception | None, Any]:
        runtime, execution, name = self._runtime, self._execution, self._name
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
            return error, None
        execution.check_open()
        faultpoint("after_execute", f"step {name}")
        return None, value

    async def _pause(self, seconds: float) -> None:
        """Wait for the next try: a long pause is a durable wait, which holds no worker."""
        if seconds <= self._runtime.settings.wait_threshold_seconds:
            await self._runtime.clock.sleep(seconds)
            return
        claim = self._execution.claim
        failures = serialization.dumps(self._failures)
        tries = len(self._failures)
        unit = retry_step_later(
            claim.id,
            claim.attempt,
            self._name,
            position=self._position,
            tries=tries,
            failures=failures,
            delay=seconds,
        )
        seq = await self._execution.commit(unit)
        status = StepStatus.RUNNING.value
        row = StepRow(
            self._name, "run", self._position, None, status, tries, None, None, None, None, failures
        )
        self._execution.begun(row)
        self._execution.scheduled(seq)
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        due = DurableFuture()

        def ring() -> None:
            if not due.done():
                due.set_result(None)
                self._execution.news.set()

        self._execution.alarms.set(self._name, seconds, ring)
        self._execution.pausing(self._name)
        self._execution.look_again()  # its time may have come before we knew of it
        try:
            await due
        finally:
            self._execution.goes_on(self._name)


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
            has_row=execution.known(name) is not None,
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
