"""Testing agents and workflows: without a model, without services, with time that can be moved.

Names are loaded when they are first used: the pytest plugin lives here, and costs other projects nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polos.engine.replaying import Replay, Verdict
    from polos.testing.answers import ScriptedAnswer, answer, error, tool_call
    from polos.testing.clock import MovableClock
    from polos.testing.guard import allow_model_requests, forbid_model_requests
    from polos.testing.memory_runtime import MemoryRuntime, runtime
    from polos.testing.model import ScriptedModel
    from polos.testing.questions import Question, answer_question, approve, next_question, reject
    from polos.testing.replays import replay
    from polos.testing.samples import call_every_tool, sample_of

_PLACES = {
    "polos.testing.answers": ("ScriptedAnswer", "answer", "error", "tool_call"),
    "polos.testing.clock": ("MovableClock",),
    "polos.testing.guard": ("allow_model_requests", "forbid_model_requests"),
    "polos.testing.memory_runtime": ("MemoryRuntime", "runtime"),
    "polos.testing.model": ("ScriptedModel",),
    "polos.testing.questions": ("Question", "answer_question", "approve", "next_question", "reject"),
    "polos.engine.replaying": ("Replay", "Verdict"),
    "polos.testing.replays": ("replay",),
    "polos.testing.samples": ("call_every_tool", "sample_of"),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "MemoryRuntime",
    "MovableClock",
    "Question",
    "Replay",
    "ScriptedAnswer",
    "ScriptedModel",
    "Verdict",
    "allow_model_requests",
    "answer",
    "answer_question",
    "approve",
    "call_every_tool",
    "error",
    "forbid_model_requests",
    "next_question",
    "reject",
    "replay",
    "runtime",
    "sample_of",
    "tool_call",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polos.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
