"""Publishing as a step: the event and the step that published it are recorded together."""

from __future__ import annotations

from typing import Any

from polos import serialization
from polos.engine.event_waiting import hand_over_events
from polos.engine.execution import Execution
from polos.engine.outcomes import completed
from polos.engine.runtime import Runtime
from polos.engine.tasks import start_apart
from polos.event_data import topic_channel, topic_of
from polos.journal.events import NewEvent, publish_by_step
from polos.journal.steps import StepRow, record_step
from polos.step_names import shown


async def publish_once(
    runtime: Runtime, execution: Execution, name: str, *, topic: str | None, data: Any, event_type: str | None
) -> None:
    """Publish an event to a topic, that of the run's own tree for None, exactly once.

    Raises:
        ValueTooLargeError, SerializationError: The data cannot be stored.
    """
    claim = execution.claim
    own = topic_of(claim.root_name, claim.root_id)
    is_new = not execution.is_recorded(name)  # what is on record was small enough then
    text = serialization.dumps(
        serialization.to_data(data),
        limit_bytes=runtime.settings.max_value_bytes if is_new else None,
        what=f"data of event {shown(name)!r}",
    )

    async def begin(position: int) -> None:
        outcome = completed(None, runtime.settings, what="")
        record = record_step(
            claim.id,
            claim.attempt,
            name,
            "publish",
            outcome,
            position=position,
            tries=1,
            worker=execution.worker_id,
        )
        unit = publish_by_step(
            record,
            NewEvent(event_type, text, claim.id),
            project=claim.project,
            topic=topic or own,
            root_id=claim.root_id,
            is_tree=topic in {None, own},
        )
        seq, number, met = await execution.answer(unit)
        status = outcome.status.value
        execution.record(StepRow(name, "publish", position, seq, status, 1, None, None, None, None))
        _tell(number)
        if met:
            start_apart(hand_over_events(runtime, claim.project, topic or own), name="polos-hand-over")

    def _tell(number: int) -> None:
        if topic not in {None, own}:
            runtime.nudges.publish(topic_channel(claim.project, topic or ""), str(number))
            runtime.published(claim.project, topic or "")
        elif number:
            event = (event_type or "", serialization.loads(text))
            runtime.feed.numbered(claim.root_id, number, event, keep=execution.streams)

    await execution.outcome(name, "publish", begin)
