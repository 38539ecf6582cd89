"""Testing agents and workflows: without a model, without services, with time that can be moved.

Names are loaded when they are first used: the pytest plugin lives here, and costs other projects nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polos.testing.answers import ScriptedAnswer, answer, error, tool_call
    from polos.testing.clock import MovableClock
    from polos.testing.memory_runtime import MemoryRuntime, runtime
    from polos.testing.model import ScriptedModel

_PLACES = {
    "polos.testing.answers": ("ScriptedAnswer", "answer", "error", "tool_call"),
    "polos.testing.clock": ("MovableClock",),
    "polos.testing.model": ("ScriptedModel",),
    "polos.testing.memory_runtime": ("MemoryRuntime", "runtime"),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "MemoryRuntime",
    "MovableClock",
    "ScriptedAnswer",
    "ScriptedModel",
    "answer",
    "error",
    "runtime",
    "tool_call",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polos.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
