"""What user code receives as `ctx`: who runs, for whom, its state, and `ctx.step`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a program that only names the context in its signatures pays for no engine
    from polos.engine.execution import Execution
    from polos.engine.runtime import Definition
    from polos.engine.step import StepRunner


class WorkflowContext:
    """The context of a running workflow or tool. All constructor arguments are readable attributes."""

    def __init__(
        self,
        workflow_id: str,
        execution_id: str,
        deployment_id: str,
        session_id: str,
        user_id: str | None = None,
        parent_execution_id: str | None = None,
        root_execution_id: str | None = None,
        root_workflow_id: str | None = None,
        retry_count: int = 0,
        created_at: datetime | None = None,
        workflow_type: str = "workflow",
        otel_traceparent: str | None = None,
        otel_span_id: str | None = None,
        state_schema: Any = None,
        initial_state: Any = None,
        cancel_event: Any = None,
        channels: list[Any] | None = None,
        channel_context: Any = None,
    ) -> None:
        self.workflow_id = workflow_id
        self.execution_id = execution_id
        self.deployment_id = deployment_id
        self.session_id = session_id
        self.user_id = user_id
        self.parent_execution_id = parent_execution_id
        self.root_execution_id = root_execution_id or execution_id
        self.root_workflow_id = root_workflow_id or workflow_id
        self.retry_count = retry_count
        self.created_at = created_at or datetime.now(UTC)
        self.workflow_type = workflow_type
        self.otel_traceparent = otel_traceparent
        self.otel_span_id = otel_span_id
        self.state_schema = state_schema
        self.initial_state = initial_state
        self.cancel_event = cancel_event
        self.channels = channels or []
        self.channel_context = channel_context
        self.state: Any = None
        self._step: StepRunner | None = None

    @property
    def step(self) -> StepRunner:
        """The durable steps of this run."""
        if self._step is None:
            raise RuntimeError("ctx.step exists only while a worker executes the run")
        return self._step

    def to_dict(self) -> dict[str, Any]:
        """Return the identifying fields as JSON data."""
        return {
            "workflow_id": self.workflow_id,
            "execution_id": self.execution_id,
            "deployment_id": self.deployment_id,
            "session_id": self.session_id,
            "user_id": self.user_id,
            "parent_execution_id": self.parent_execution_id,
            "root_execution_id": self.root_execution_id,
            "root_workflow_id": self.root_workflow_id,
            "retry_count": self.retry_count,
            "created_at": self.created_at.isoformat(),
            "workflow_type": self.workflow_type,
        }


class AgentContext(WorkflowContext):
    """The context of a running agent: a `WorkflowContext` with the agent's model and tools."""

    def __init__(
        self,
        agent_id: str,
        execution_id: str,
        deployment_id: str,
        session_id: str,
        *args: Any,
        model: str = "gpt-4",
        provider: str = "openai",
        system_prompt: str | None = None,
        tools: list[Any] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        **options: Any,
    ) -> None:
        options["workflow_type"] = "agent"
        super().__init__(agent_id, execution_id, deployment_id, session_id, *args, **options)
        self.agent_id = agent_id
        self.model = model
        self.provider = provider
        self.system_prompt = system_prompt
        self.tools = tools or []
        self.temperature = temperature
        self.max_tokens = max_tokens


def build_context(execution: Execution, definition: Definition, step: StepRunner) -> WorkflowContext:
    """Return the context for the body of `execution`; `step` are its steps."""
    claim = execution.claim
    common: dict[str, Any] = {
        "execution_id": claim.id,
        "deployment_id": claim.deployment,
        "session_id": claim.session_id,
        "user_id": claim.user_id,
        "parent_execution_id": claim.parent_id,
        "root_execution_id": claim.root_id,
        "root_workflow_id": claim.root_name,
        "retry_count": claim.retries,
        "created_at": datetime.fromtimestamp(claim.created_at, UTC),
    }
    context: WorkflowContext
    if claim.kind == "agent":
        context = AgentContext(
            agent_id=claim.name,
            model=getattr(definition, "model", ""),
            provider=getattr(definition, "provider", ""),
            system_prompt=getattr(definition, "system_prompt", None),
            tools=getattr(definition, "tools", None),
            temperature=getattr(definition, "temperature", None),
            max_tokens=getattr(definition, "max_output_tokens", None),
            **common,
        )
    else:
        context = WorkflowContext(workflow_id=claim.name, workflow_type=claim.kind, **common)
    context.state_schema = getattr(definition, "state_schema", None)
    context._step = step
    return context
