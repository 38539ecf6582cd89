"""What the replay of a run that a person retries takes back: failures that its code did not handle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polos import event_data, serialization
from polos.journal.retries import OldStep, reopen, reopen_child, take_back
from polos.journal.statements import Unit
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.journal.stuck import deliver_child
from polos.step_names import shown

if TYPE_CHECKING:
    from polos.engine.execution import Execution

BEGUN_ANEW = frozenset({"suspend", "event"})  # where they stood is not known any more


async def taken_back(execution: Execution, step: StepRow) -> StepRow | None:
    """Take a failed step back: return it as it goes on, or None if it is to be begun anew.

    A step that was only cut off by the end of its run (it has no `seq`) goes on where that is possible.

    Raises:
        Fenced: The run is no longer ours.
    """
    was_cut_off = not step.has_outcome
    goes_on = step.kind in {"turn", "child"} or (was_cut_off and step.kind not in BEGUN_ANEW)
    execution.scheduled(await execution.commit(_unit(execution, step, goes_on)))
    if not goes_on:
        return None
    if step.child_id is not None and await execution.journal.do(
        deliver_child(execution.run_id, step.name)  # one that had its end meanwhile
    ):
        execution.look_again()
    return replace(step, seq=None, status=StepStatus.RUNNING.value, output=None, error=None)


def _unit(execution: Execution, step: StepRow, goes_on: bool) -> Unit:
    claim = execution.claim
    where = event_data.metadata(claim.id, claim.name)
    topic = event_data.topic_of(claim.root_name, claim.root_id)
    told = _text(event_data.step_retried(shown(step.name), where, step.error))
    old = OldStep(claim.id, claim.attempt, step.name, topic, told)
    if not goes_on:
        return take_back(old)
    if step.kind != "child" or step.child_id is None:
        return reopen(old)
    child = event_data.metadata(step.child_id, "")
    return reopen_child(old, step.child_id, event=_text(event_data.run_retried("", child, step.error)))


def _text(event: tuple[str, Any]) -> tuple[str, str]:
    kind, data = event
    return kind, serialization.dumps(data)
