"""Durable AI agents on Celery: runs that go on from their last completed step, whatever dies.

Names are loaded when they are first used, so that `import polos` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from polos import aliases

if TYPE_CHECKING:
    from polos.agents.agent import Agent
    from polos.agents.batches import batch_agent_invoke
    from polos.agents.fallbacks import FallbackModel
    from polos.agents.handoffs import Handoff
    from polos.agents.inputs import AgentRunConfig
    from polos.agents.stop_conditions import (
        DeadlineConfig,
        ExecutedToolConfig,
        HasTextConfig,
        MaxCostConfig,
        MaxStepsConfig,
        MaxTokensConfig,
        StopConditionContext,
        deadline,
        executed_tool,
        has_text,
        max_cost,
        max_steps,
        max_tokens,
        stop_condition,
    )
    from polos.agents.stream import AgentStreamHandle, StreamResult
    from polos.agents.usage_limits import UsageLimits
    from polos.client import PolosClient, batch_invoke
    from polos.engine.context import AgentContext, WorkflowContext
    from polos.errors import (
        ExecutionCancelledError,
        GuardrailError,
        OutputError,
        StepExecutionError,
        UsageLimitExceededError,
        WorkflowTimeoutError,
    )
    from polos.events import BatchEventPayload, EventData, EventPayload, StreamEvent
    from polos.explicit_worker import Worker
    from polos.guardrails import GuardrailContext, GuardrailResult, guardrail
    from polos.handles import ExecutionHandle
    from polos.hooks import HookAction, HookContext, HookResult, hook
    from polos.inputs import WorkflowState
    from polos.mcp.environment import EnvironmentVariable
    from polos.mcp.server import MCPServer
    from polos.memory.types import CompactionConfig
    from polos.program import Polos
    from polos.queues import Queue, queue
    from polos.registry import get_all_workflows, get_workflow
    from polos.schedules import SchedulePayload
    from polos.tools.ask_user import AskUserField, AskUserFieldOption, AskUserInput, create_ask_user_tool
    from polos.tools.content import ImageBlock, TextBlock, ToolContent
    from polos.tools.tool import Tool, ToolApproval, tool
    from polos.tools.web_search import (
        TavilySearchConfig,
        WebSearchFunction,
        WebSearchOptions,
        WebSearchResult,
        WebSearchResultItem,
        WebSearchToolConfig,
        create_web_search_tool,
    )
    from polos.types import (
        AgentConfig,
        AgentResult,
        BatchStepResult,
        BatchWorkflowInput,
        Step,
        ToolCall,
        ToolCallFunction,
        ToolResult,
        Usage,
    )
    from polos.usage import UsageReport, UsageRow, UsageTotals
    from polos.worker.app import install
    from polos.workflows import Workflow, workflow

__version__ = "0.1.0"

_PLACES = {
    "polos.agents.agent": ("Agent",),
    "polos.agents.batches": ("batch_agent_invoke",),
    "polos.agents.fallbacks": ("FallbackModel",),
    "polos.agents.handoffs": ("Handoff",),
    "polos.agents.inputs": ("AgentRunConfig",),
    "polos.agents.stop_conditions": (
        "DeadlineConfig",
        "ExecutedToolConfig",
        "HasTextConfig",
        "MaxCostConfig",
        "MaxStepsConfig",
        "MaxTokensConfig",
        "StopConditionContext",
        "deadline",
        "executed_tool",
        "has_text",
        "max_cost",
        "max_steps",
        "max_tokens",
        "stop_condition",
    ),
    "polos.agents.stream": ("AgentStreamHandle", "StreamResult"),
    "polos.agents.usage_limits": ("UsageLimits",),
    "polos.client": ("PolosClient", "batch_invoke"),
    "polos.engine.context": ("AgentContext", "WorkflowContext"),
    "polos.errors": (
        "ExecutionCancelledError",
        "GuardrailError",
        "OutputError",
        "StepExecutionError",
        "UsageLimitExceededError",
        "WorkflowTimeoutError",
    ),
    "polos.events": ("BatchEventPayload", "EventData", "EventPayload", "StreamEvent"),
    "polos.explicit_worker": ("Worker",),
    "polos.guardrails": ("GuardrailContext", "GuardrailResult", "guardrail"),
    "polos.handles": ("ExecutionHandle",),
    "polos.hooks": ("HookAction", "HookContext", "HookResult", "hook"),
    "polos.inputs": ("WorkflowState",),
    "polos.mcp.environment": ("EnvironmentVariable",),
    "polos.mcp.server": ("MCPServer",),
    "polos.memory.types": ("CompactionConfig",),
    "polos.program": ("Polos",),
    "polos.queues": ("Queue", "queue"),
    "polos.registry": ("get_all_workflows", "get_workflow"),
    "polos.schedules": ("SchedulePayload",),
    "polos.tools.ask_user": ("AskUserField", "AskUserFieldOption", "AskUserInput", "create_ask_user_tool"),
    "polos.tools.content": ("ImageBlock", "TextBlock", "ToolContent"),
    "polos.tools.tool": ("Tool", "ToolApproval", "tool"),
    "polos.tools.web_search": (
        "TavilySearchConfig",
        "WebSearchFunction",
        "WebSearchOptions",
        "WebSearchResult",
        "WebSearchResultItem",
        "WebSearchToolConfig",
        "create_web_search_tool",
    ),
    "polos.types": (
        "AgentConfig",
        "AgentResult",
        "BatchStepResult",
        "BatchWorkflowInput",
        "Step",
        "ToolCall",
        "ToolCallFunction",
        "ToolResult",
        "Usage",
    ),
    "polos.usage": ("UsageReport", "UsageRow", "UsageTotals"),
    "polos.worker.app": ("install",),
    "polos.workflows": ("Workflow", "workflow"),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    if name == "celery":  # where `celery -A polos` looks for the app
        app = importlib.import_module("polos.worker.app").command_app()
        globals()["celery"] = app
        return app
    if name not in _HOMES:
        raise AttributeError(f"module 'polos' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "celery"]


aliases.install()
