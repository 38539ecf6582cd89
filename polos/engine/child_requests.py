"""From what users give to `ctx.step.invoke` and its relatives to the children to create."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polos.engine.children import ChildRequest
from polos.engine.inline import value_of
from polos.errors import StepExecutionError
from polos.inputs import check_labels
from polos.journal.steps import StepRow
from polos.queues import check_start
from polos.types import BatchStepResult, BatchWorkflowInput
from polos.workflows import Workflow, get_workflow


def request_for(
    workflow: str | Workflow,
    payload: Any,
    initial_state: Any,
    queue: str | None,
    concurrency_key: str | None,
    run_timeout_seconds: float | None,
    *,
    priority: int | None = None,
) -> ChildRequest:
    """Return the child that a workflow and its input ask for.

    Raises:
        StepExecutionError: The workflow is not known in this process.
        ValueError, TypeError: Payload, state or labels do not fit.
    """
    check_labels(queue=queue, concurrency_key=concurrency_key)
    check_start(priority=priority)
    definition = get_workflow(workflow) if isinstance(workflow, str) else workflow
    if not isinstance(definition, Workflow):
        raise StepExecutionError(
            f"Workflow {workflow!r} is not defined in this process; import the module that defines it"
        )
    return ChildRequest(
        kind=definition.workflow_type,
        name=definition.id,
        route=definition.route,
        queue=queue or definition.queue_name,
        payload=definition.check_payload(payload),
        initial_state=definition.check_state(initial_state),
        concurrency_key=concurrency_key,
        priority=priority,
        run_timeout_seconds=run_timeout_seconds,
        rebuilt=definition.rebuild_result,
    )


def agent_request(step_key: str, config: Any) -> ChildRequest:
    """Return the child that ``agent.with_input(...)`` asks for.

    Raises:
        StepExecutionError: It is something else.
    """
    agent = getattr(config, "agent", None)
    if not isinstance(agent, Workflow) or not hasattr(config, "payload"):
        raise StepExecutionError(
            f"Step {step_key!r} needs what agent.with_input(...) returns, not {type(config).__name__}"
        )
    limit = config.run_timeout_seconds
    request = request_for(agent, config.payload(), config.initial_state, None, None, limit)
    return request.for_session(config.session_id, config.user_id)


def batch_requests(
    step_key: str, items: Sequence[Any], request: Callable[[str, Any], ChildRequest]
) -> list[ChildRequest]:
    """Return the children of a batch, all checked before anything is started.

    Raises:
        StepExecutionError: An item is of no use; the message says which.
        ValueError, TypeError: A payload does not fit.
    """
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise StepExecutionError(f"Step {step_key!r} takes a list, not {type(items).__name__}")
    return [request(f"{step_key}[{place}]", item) for place, item in enumerate(items)]


def batch_item(step_key: str, item: object) -> ChildRequest:
    """Return the child that one item of a batch asks for.

    Raises:
        StepExecutionError: It is no `BatchWorkflowInput`, or its workflow is not defined in this process.
    """
    if not isinstance(item, BatchWorkflowInput):
        raise StepExecutionError(f"Step {step_key!r} needs a BatchWorkflowInput, not {type(item).__name__}")
    return request_for(
        item.id,
        item.payload,
        item.initial_state,
        item.queue,
        item.concurrency_key,
        item.run_timeout_seconds,
    )


def batch_result(request: ChildRequest, row: StepRow) -> BatchStepResult:
    """Return how an item of a batch ended; a failure is a result here."""
    try:
        value = request.rebuilt(value_of(row), row.output_schema)
    except StepExecutionError as error:
        return BatchStepResult(workflow_id=request.name, success=False, error=str(error))
    return BatchStepResult(workflow_id=request.name, success=True, result=value)
