"""The front door: which names `polos` exports, and what importing it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import polos

NAMES = {
    "Agent",
    "AgentConfig",
    "AgentContext",
    "AgentResult",
    "AgentRunConfig",
    "AgentStreamHandle",
    "AskUserField",
    "AskUserFieldOption",
    "AskUserInput",
    "BatchEventPayload",
    "BatchStepResult",
    "BatchWorkflowInput",
    "CompactionConfig",
    "DeadlineConfig",
    "EnvironmentVariable",
    "EventData",
    "EventPayload",
    "ExecutedToolConfig",
    "ExecutionCancelledError",
    "ExecutionHandle",
    "FallbackModel",
    "GuardrailContext",
    "GuardrailError",
    "GuardrailResult",
    "Handoff",
    "HasTextConfig",
    "HookAction",
    "HookContext",
    "HookResult",
    "ImageBlock",
    "MCPServer",
    "MaxCostConfig",
    "MaxStepsConfig",
    "MaxTokensConfig",
    "OutputError",
    "Polos",
    "PolosClient",
    "Queue",
    "SchedulePayload",
    "Step",
    "StepExecutionError",
    "StopConditionContext",
    "StreamEvent",
    "StreamResult",
    "TavilySearchConfig",
    "TextBlock",
    "Tool",
    "ToolApproval",
    "ToolCall",
    "ToolCallFunction",
    "ToolContent",
    "ToolResult",
    "Usage",
    "UsageLimitExceededError",
    "UsageLimits",
    "UsageReport",
    "UsageRow",
    "UsageTotals",
    "WebSearchFunction",
    "WebSearchOptions",
    "WebSearchResult",
    "WebSearchResultItem",
    "WebSearchToolConfig",
    "Worker",
    "Workflow",
    "WorkflowContext",
    "WorkflowState",
    "WorkflowTimeoutError",
    "__version__",
    "batch_agent_invoke",
    "batch_invoke",
    "create_ask_user_tool",
    "create_web_search_tool",
    "deadline",
    "executed_tool",
    "get_all_workflows",
    "get_workflow",
    "guardrail",
    "has_text",
    "hook",
    "install",
    "max_cost",
    "max_steps",
    "max_tokens",
    "queue",
    "stop_condition",
    "tool",
    "workflow",
}
HEAVY = ("litellm", "celery", "kombu", "sqlalchemy", "sqlmodel", "pydantic", "redis", "psycopg", "typer")


def test_all_is_exact() -> None:
    """A name is added or taken away on purpose, here and in the changelog."""
    assert set(polos.__all__) == NAMES
    assert len(polos.__all__) == len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_can_be_imported(name: str) -> None:
    """Each name is what it is called, not a module and not None."""
    value = getattr(polos, name)

    assert value is not None
    assert getattr(value, "__name__", name) == name or name in {
        "ToolApproval",
        "WebSearchFunction",
        "__version__",
    }


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_a_type_checker_sees_what_an_import_gives(name: str) -> None:
    """The imports that only type checkers read name the same places as the ones made at run time."""
    source = importlib.import_module(polos._HOMES[name])

    assert getattr(source, name) is getattr(polos, name)
    assert f"from {polos._HOMES[name]} import" in _source()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = polos.Agnet  # type: ignore[attr-defined]


def test_importing_polos_costs_next_to_nothing() -> None:
    """No broker, database, model or validation library is imported before a name needs it."""
    program = f"import sys, polos; print([name for name in {HEAVY} if name in sys.modules])"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert answer.stdout.strip() == "[]", answer.stderr


def test_a_client_never_imports_litellm() -> None:
    """It takes seconds; only a worker that is about to call a model pays for it."""
    program = (
        "import sys\n"
        "from polos import Agent, PolosClient, WorkflowContext, max_steps, tool, workflow\n"
        "Agent(id='a', provider='openai', model='m'), PolosClient()\n"
        "print('litellm' in sys.modules)"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert answer.stdout.strip() == "False", answer.stderr


def _source() -> str:
    assert polos.__file__ is not None
    with open(polos.__file__, encoding="utf-8") as file:
        return file.read()
