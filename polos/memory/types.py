"""The records of session memory: its limits, what it holds, and what a compaction came to."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_CONVERSATION_TOKENS = 80_000
MAX_SUMMARY_TOKENS = 20_000
MIN_RECENT_MESSAGES = 2


class NormalizedCompactionConfig(BaseModel):
    """Limits with every default filled in; see `CompactionConfig`."""

    model_config = ConfigDict(frozen=True)

    max_conversation_tokens: int = MAX_CONVERSATION_TOKENS
    max_summary_tokens: int = MAX_SUMMARY_TOKENS
    min_recent_messages: int = MIN_RECENT_MESSAGES
    enabled: bool = True


class CompactionConfig(BaseModel):
    """When an agent folds older messages of its conversation into a summary. None means the default.

    Attributes:
        max_conversation_tokens: Fold before a model call whose messages are longer; 80,000.
        max_summary_tokens: A summary that is longer is summarised once more; 20,000.
        min_recent_messages: So many of the last messages are kept as they are, or some more; 2.
        enabled: True; False sends everything, however long.
    """

    model_config = ConfigDict(extra="forbid")

    max_conversation_tokens: int | None = Field(default=None, ge=1)
    max_summary_tokens: int | None = Field(default=None, ge=1)
    min_recent_messages: int | None = Field(default=None, ge=1)
    enabled: bool | None = None

    def normalized(self) -> NormalizedCompactionConfig:
        """Return the limits with the defaults filled in."""
        return NormalizedCompactionConfig(**self.model_dump(exclude_none=True))


class SessionMemory(BaseModel):
    """What the next run of an agent in a session begins with.

    Attributes:
        summary: Stands for what was said before the messages.
        messages: ``{"role", "content"}``, ``{"type": "function_call", "name", "call_id", "arguments"}`` and
            ``{"type": "function_call_output", "call_id", "output"}``, oldest first.
    """

    summary: str | None = None
    messages: list[dict[str, Any]] = Field(default_factory=list)


class CompactionResult(BaseModel):
    """What became of a conversation that was looked at before a model call.

    Attributes:
        compacted: Whether anything was folded.
        messages: The conversation to go on with: the summary pair, if there is one, and what was kept.
        summary: The text that stands for the rest.
        summary_tokens: About so many.
        total_turns: User messages among those kept.
    """

    compacted: bool
    messages: list[dict[str, Any]]
    summary: str | None = None
    summary_tokens: int = 0
    total_turns: int = 0


def checked_limits(given: Any) -> NormalizedCompactionConfig:
    """Return the limits that were given as a `CompactionConfig`, a dict of its fields, or None.

    Raises:
        TypeError: They are something else.
        ValueError: A limit is unknown or cannot be used.
    """
    match given:
        case NormalizedCompactionConfig():
            return given
        case None:
            return NormalizedCompactionConfig()
        case CompactionConfig():
            return given.normalized()
        case dict():
            try:
                return CompactionConfig.model_validate(given).normalized()
            except ValidationError as error:
                raise ValueError(f"compaction={given!r} cannot be used: {error}") from error
    raise TypeError(f"compaction= takes a CompactionConfig, not {given!r}")
