"""Import paths of other layouts that existing programs use, such as ``polos.core.workflow``.

Each is a module object without a file, whose names are looked up in their real place on first use.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Path -> name there -> where it really is. A folder that does not exist here needs a row of its own.
ALIASES: dict[str, dict[str, str]] = {
    "polos.core": {},
    "polos.core.context": {
        "WorkflowContext": "polos.engine.context:WorkflowContext",
        "AgentContext": "polos.engine.context:AgentContext",
    },
    "polos.core.state": {"WorkflowState": "polos.workflows:WorkflowState"},
    "polos.core.step": {
        "Step": "polos.engine.step:StepRunner",
        "ExecutionCancelledError": "polos.errors:ExecutionCancelledError",
    },
    "polos.core.workflow": {
        "Workflow": "polos.workflows:Workflow",
        "workflow": "polos.workflows:workflow",
        "get_workflow": "polos.workflows:get_workflow",
        "get_all_workflows": "polos.workflows:get_all_workflows",
        "StepExecutionError": "polos.errors:StepExecutionError",
        "WorkflowTimeoutError": "polos.errors:WorkflowTimeoutError",
    },
    "polos.features": {},
    "polos.features.events": {
        name: f"polos.events:{name}"
        for name in (
            "BatchEventPayload",
            "Event",
            "EventData",
            "EventItem",
            "EventPayload",
            "StreamEvent",
            "batch_publish",
            "publish",
            "stream_topic",
            "stream_workflow",
        )
    },
    "polos.features.schedules": {
        name: f"polos.schedules:{name}"
        for name in (
            "Schedule",
            "SchedulePayload",
            "create",
            "delete",
            "get",
            "list",
            "pause",
            "resume",
            "trigger",
        )
    },
    "polos.features.wait": {"WaitException": "polos.errors:WaitException"},
    "polos.llm": {
        "LLMProvider": "polos.models.interface:LLMProvider",
        "LLMResponse": "polos.models.interface:LLMResponse",
        "get_provider": "polos.models.builtin:get_provider",
        "register_provider": "polos.models.interface:register_provider",
    },
    "polos.llm.providers": {
        "LLMProvider": "polos.models.interface:LLMProvider",
        "LLMResponse": "polos.models.interface:LLMResponse",
        "get_provider": "polos.models.builtin:get_provider",
        "register_provider": "polos.models.interface:register_provider",
    },
    "polos.middleware": {},
    "polos.middleware.guardrail": {
        name: f"polos.guardrails:{name}" for name in ("GuardrailContext", "GuardrailResult", "guardrail")
    },
    "polos.middleware.hook": {
        name: f"polos.hooks:{name}" for name in ("HookAction", "HookContext", "HookResult", "hook")
    },
    "polos.runtime": {},
    "polos.runtime.batch": {
        "batch_invoke": "polos.client:batch_invoke",
        "batch_agent_invoke": "polos.agents.batches:batch_agent_invoke",
    },
    "polos.runtime.client": {
        "PolosClient": "polos.client:PolosClient",
        "ExecutionHandle": "polos.handles:ExecutionHandle",
    },
    "polos.runtime.queue": {"Queue": "polos.queues:Queue", "queue": "polos.queues:queue"},
    "polos.runtime.worker": {"Worker": "polos.explicit_worker:Worker"},
    "polos.types.types": {
        "AgentConfig": "polos.types:AgentConfig",
        "AgentResult": "polos.types:AgentResult",
        "BatchStepResult": "polos.types:BatchStepResult",
        "BatchWorkflowInput": "polos.types:BatchWorkflowInput",
        "Step": "polos.types:Step",
        "ToolCall": "polos.types:ToolCall",
        "ToolCallFunction": "polos.types:ToolCallFunction",
        "ToolResult": "polos.types:ToolResult",
        "Usage": "polos.types:Usage",
    },
    "polos.utils": {
        "serialize": "polos.serialization:serialize",
        "json_serialize": "polos.serialization:json_serialize",
        "safe_serialize": "polos.serialization:safe_serialize",
        "deserialize": "polos.serialization:deserialize",
        "is_json_serializable": "polos.serialization:is_json_serializable",
        "is_localhost_url": "polos.transport:is_loopback",
    },
}


class AliasModule(ModuleType):
    """A module that has no code of its own, only names that are elsewhere."""

    def __init__(self, path: str, targets: dict[str, str]) -> None:
        super().__init__(path, f"Names of polos under the path {path}, where existing programs import them.")
        self.__all__ = list(targets)
        self.__path__: list[str] = []  # a package: what is not listed below it is reported as missing
        self.__spec__ = ModuleSpec(path, loader=None, is_package=True)
        self._targets = targets

    def __getattr__(self, name: str) -> Any:
        target = self.__dict__.get("_targets", {}).get(name)
        if target is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, attribute = target.partition(":")
        value = getattr(importlib.import_module(module), attribute)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._targets]


def install() -> None:
    """Make every path of `ALIASES` importable. Real modules of the same path are left alone.

    To be called last by ``polos/__init__``: only parents imported by then get the path as an attribute.
    """
    for path, targets in ALIASES.items():
        if path in sys.modules:
            continue
        sys.modules[path] = module = AliasModule(path, targets)
        parent, _, name = path.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], name, module)
