"""Replaying a run's journal against the code there is now, without doing anything: does it still fit?

The engine is the one that executes runs, but for this: a step without an outcome is not begun, and nothing is
written. The run itself, live or ended, is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from polos import serialization
from polos.engine.context import build_context
from polos.engine.coordinator import run_body
from polos.engine.execution import Execution
from polos.engine.outcomes import error_text
from polos.engine.parking import UNWIND_SECONDS
from polos.engine.runtime import Definition, Runtime
from polos.engine.signals import Drained
from polos.engine.step import StepRunner
from polos.engine.tasks import Task
from polos.errors import NonDeterminismError
from polos.journal.runs import Claim
from polos.journal.states import RunStatus
from polos.step_names import shown

PATIENCE_SECONDS = 5.0  # for code that awaits something of its own, outside of its steps
LOOK_AGAIN_SECONDS = 0.05


class Verdict(StrEnum):
    """How a run's journal and the code go together."""

    SAME = "same"
    """The run has ended, and the code comes to the same end."""
    GOES_ON = "goes_on"
    """The code asks for all that is recorded, and the run has not ended: it would go on from there."""
    OTHER_END = "other_end"
    """The code asks for all that is recorded, but ends differently than the run did, or not there."""
    DEVIATES = "deviates"
    """The code asks for other steps than are recorded: a live run would be blocked."""


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        run_id: Of the run.
        name: Of its definition.
        status: Of the run, when its journal was read.
        verdict: See `Verdict`.
        reason: What differs, or what the run waits for or would do next.
    """

    run_id: str
    name: str
    status: str
    verdict: Verdict
    reason: str


class _Replaying(Execution):
    """A run that begins nothing."""

    async def _let_go_on(self, name: str) -> None:
        """Leave a step that was cut off by the end of its run as it is: it has no outcome."""

    def asks_for(self) -> tuple[list[str], list[str]]:
        """Return the steps whose outcome the code awaits: those that are recorded, and those that are not."""
        asked = [name for name, waiter in self._asked.items() if not waiter.done()]
        known = sorted(shown(name) for name in asked if self.is_recorded(name))
        return known, sorted(shown(name) for name in asked if not self.is_recorded(name))


async def replay(runtime: Runtime, run: Mapping[str, Any]) -> Replay:
    """Replay one run, a row of the journal by column name, and return how code and journal go together.

    Code outside of steps is executed, as in every replay. The journal of `runtime` is only read.
    """
    claim = _claim(run)
    definition = runtime.resolve(claim.kind, claim.name, claim.caller)
    if definition is None:
        missing = f"No {claim.kind or 'workflow'} named {claim.name!r} is defined here; import its module"
        return _found(run, Verdict.DEVIATES, missing)
    execution = _Replaying(claim, runtime.journal, worker_id=runtime.worker_id, clock=runtime.clock)
    execution.hold_back = True
    await execution.load()
    context = build_context(execution, definition, StepRunner(runtime, execution))
    body = execution.start(lambda: run_body(runtime, execution, definition, context))
    try:
        if not await _delivered(body, execution):
            return _found(run, *_standing(run, execution))
        return _found(run, *_ended(run, execution, definition, body))
    except NonDeterminismError as error:
        return _found(run, Verdict.DEVIATES, error_text(error))
    finally:
        await execution.put_away(Drained(), patience_seconds=UNWIND_SECONDS)


def _claim(run: Mapping[str, Any]) -> Claim:
    """Return the run as a later attempt of it would find it."""
    values = {spec.name: run.get(spec.name) for spec in fields(Claim)}
    fresh = {"crashes": 0, "retried_seq": None, "run_timeout_seconds": None, "running_seconds": 0.0}
    computed = {"keeps_slot": False, "leaves_backlog": False, "slot": None}
    return Claim(**{**values, **fresh, **computed, "attempt": run["attempt"] + 2})


async def _delivered(body: Task, execution: Execution) -> bool:
    """Deliver what is recorded; return whether the code has ended."""
    loop = asyncio.get_running_loop()
    moved_at = loop.time()
    while not body.done():
        execution.news.clear()
        if await execution.deliver_next():
            moved_at = loop.time()
            continue
        if body.done():
            break
        if execution.only_waits():
            return False
        if loop.time() - moved_at > PATIENCE_SECONDS:
            raise NonDeterminismError(
                f"The code awaits something outside of its steps for more than {PATIENCE_SECONDS:g} s, so it "
                "cannot be said what it would do. Whatever takes time belongs into a step"
            )
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await execution.news.wait()
        except TimeoutError:
            continue
    return True


def _standing(run: Mapping[str, Any], execution: _Replaying) -> tuple[Verdict, str]:
    """Say where the code stands that has been given all there is."""
    recorded, new = execution.asks_for()
    waits = f"waits for {recorded}" if recorded else ""
    begins = f"{'then' if waits else 'the code'} begins {new}" if new else ""
    reason = ", ".join(filter(None, (waits, begins)))
    is_over = run["status"] in {RunStatus.COMPLETED.value, RunStatus.FAILED.value}
    if not is_over or _was_cut_off(run):
        return Verdict.GOES_ON, reason
    return Verdict.OTHER_END, f"the run {run['status']} here; {reason}"


def _was_cut_off(run: Mapping[str, Any]) -> bool:
    """Whether a run ended by what no replay shows: its time was up, or its workers died."""
    return run.get("cancelled_by") is not None or (run.get("error") or "").startswith("worker_lost")


def _ended(
    run: Mapping[str, Any], execution: _Replaying, definition: Definition, body: Task
) -> tuple[Verdict, str]:
    error = None if body.cancelled() else body.exception()
    execution.check_all_asked_for(error)
    now = f"fails: {error_text(error)}" if error is not None else f"returns {_text(body.result(), run)}"
    if run["status"] == RunStatus.COMPLETED:
        was = f"returns {serialization.dumps(_recorded(run))}"
    elif run["status"] == RunStatus.FAILED:
        was = f"fails: {run['error']}"
    else:
        return Verdict.GOES_ON, f"the code {now}"
    if now == was:
        return Verdict.SAME, ""
    return Verdict.OTHER_END, f"the code {now}; the run's: {was}"


def _text(value: Any, run: Mapping[str, Any]) -> str:
    try:
        data = serialization.loads(serialization.dumps(value))
    except (TypeError, ValueError) as error:
        return f"what cannot be stored ({error})"
    return serialization.dumps(_without_new(data, _recorded(run)) if run["kind"] == "agent" else data)


def _recorded(run: Mapping[str, Any]) -> Any:
    return None if run["output"] is None else serialization.loads(run["output"])


def _without_new(data: Any, recorded: Any) -> Any:
    """Return the result of an agent without the fields that results have got since, in the recorded order."""
    if isinstance(data, dict) and isinstance(recorded, dict):
        return {key: _without_new(data[key], recorded[key]) for key in recorded if key in data}
    if isinstance(data, list) and isinstance(recorded, list) and len(data) == len(recorded):
        return [_without_new(*pair) for pair in zip(data, recorded, strict=True)]
    return data


def _found(run: Mapping[str, Any], verdict: Verdict, reason: str) -> Replay:
    return Replay(str(run["id"]), str(run["name"]), str(run["status"]), verdict, reason)
