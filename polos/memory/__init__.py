"""What agents remember of a session, and how a conversation that grows too long is folded into a summary.

Names are loaded when they are first used: an agent that only names its limits pays for no client. Those that
need a client or a model live above this room.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polos.memory.estimates import estimate_message_tokens, estimate_messages_tokens, estimate_tokens
    from polos.memory.summaries import (
        COMPACTION_PROMPT,
        SUMMARY_ASSISTANT_ACK,
        SUMMARY_USER_PREFIX,
        build_summary_messages,
        is_summary_pair,
    )
    from polos.memory.types import (
        CompactionConfig,
        CompactionResult,
        NormalizedCompactionConfig,
        SessionMemory,
    )

_PLACES = {
    "polos.agents.compacting": ("compact_if_needed",),
    "polos.agents.session_memory": ("get_session_memory", "put_session_memory"),
    "polos.memory.estimates": ("estimate_message_tokens", "estimate_messages_tokens", "estimate_tokens"),
    "polos.memory.summaries": (
        "COMPACTION_PROMPT",
        "SUMMARY_ASSISTANT_ACK",
        "SUMMARY_USER_PREFIX",
        "build_summary_messages",
        "is_summary_pair",
    ),
    "polos.memory.types": (
        "CompactionConfig",
        "CompactionResult",
        "NormalizedCompactionConfig",
        "SessionMemory",
    ),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "COMPACTION_PROMPT",
    "SUMMARY_ASSISTANT_ACK",
    "SUMMARY_USER_PREFIX",
    "CompactionConfig",
    "CompactionResult",
    "NormalizedCompactionConfig",
    "SessionMemory",
    "build_summary_messages",
    "compact_if_needed",
    "estimate_message_tokens",
    "estimate_messages_tokens",
    "estimate_tokens",
    "get_session_memory",
    "is_summary_pair",
    "put_session_memory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
