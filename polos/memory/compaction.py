"""Compaction: when a conversation grows too long, a model folds what is old of it into a summary."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from polos.errors import StepExecutionError, UsageLimitExceededError
from polos.memory.cutting import Cut, cut
from polos.memory.estimates import estimate_messages_tokens, estimate_tokens
from polos.memory.summaries import (
    COMPACTION_PROMPT,
    SHORTER_PROMPT,
    build_summary_messages,
    is_summary_pair,
    request_for,
    request_for_less,
    summary_in,
    transcript,
)
from polos.memory.types import NormalizedCompactionConfig

logger = logging.getLogger("polos.memory")

Item = dict[str, Any]

WORDS_PER_TOKEN = 0.6


class Ask(Protocol):
    """Asks a model for a summary, as a step of the run."""

    async def __call__(self, key: str, messages: list[Item], *, system_prompt: str) -> str:
        """Return its text. `key` tells the calls of one compaction apart; empty for the first.

        Raises:
            StepExecutionError: The model could not be made to answer.
        """
        ...


@dataclass(frozen=True)
class Compaction:
    """How a conversation is shortened.

    Attributes:
        cut: By the places of its items; the summary pair it began with is in neither part.
        summary: What stands for the folded part and any summary before it; None when no model would make one.
    """

    cut: Cut
    summary: str | None


def _nothing_is(key: str) -> bool:
    return False


async def compact(
    items: Sequence[Item],
    limits: NormalizedCompactionConfig,
    ask: Ask,
    *,
    force: bool = False,
    is_recorded: Callable[[str], bool] = _nothing_is,
) -> Compaction | None:
    """Fold what is old of a conversation; return None where it is short enough, or nothing can be folded.

    A model that fails fails nothing: what is old is left out then, and only an earlier summary stands for it.

    Raises:
        UsageLimitExceededError: No further model call may be made, for anything.

    Args:
        items: The conversation; it may begin with a summary pair.
        limits: When and how far.
        ask: Asks the model.
        force: The provider has refused it as too long, whatever the estimate and `limits.enabled` say.
        is_recorded: Whether the model was asked with this key before. Then it is asked again, whatever is
            to be folded now: a part of the conversation may have been deleted since.
    """
    tokens = estimate_messages_tokens(items)
    is_long = limits.enabled and tokens > limits.max_conversation_tokens
    if not (is_long or force or is_recorded("")):
        return None
    begin = 2 if is_summary_pair(items) else 0
    found = cut(items, begin=begin, recent=limits.min_recent_messages)
    if found is None and not is_recorded(""):
        return None
    # What was refused as a whole is folded in pieces that are certainly shorter.
    longest = min(limits.max_conversation_tokens, tokens // 2) if force else limits.max_conversation_tokens
    pieces = _pieces(transcript([] if found is None else [items[place] for place in found.folded]), longest)
    try:
        summary = await _summarised(pieces, summary_in(items), limits, ask, is_recorded)
    except UsageLimitExceededError:
        raise
    except StepExecutionError as error:
        logger.warning("No summary could be made, so older messages are left out: %s", error)
        summary = None
    return None if found is None else Compaction(found, summary)


async def _summarised(
    pieces: Sequence[Sequence[str]],
    summary: str | None,
    limits: NormalizedCompactionConfig,
    ask: Ask,
    is_recorded: Callable[[str], bool],
) -> str | None:
    for number in count(1):
        key = "" if number == 1 else str(number)
        if number > len(pieces) and not is_recorded(key):
            break
        piece = pieces[number - 1] if number <= len(pieces) else ()
        summary = _not_empty(await ask(key, request_for(summary, piece), system_prompt=COMPACTION_PROMPT))
    is_long = summary is not None and estimate_tokens(summary) > limits.max_summary_tokens
    if summary is not None and (is_long or is_recorded("shorter")):
        prompt = SHORTER_PROMPT.format(words=int(limits.max_summary_tokens * WORDS_PER_TOKEN))
        summary = _not_empty(await ask("shorter", request_for_less(summary), system_prompt=prompt))
    return summary


def _not_empty(summary: str) -> str:
    if not summary.strip():
        raise StepExecutionError("The model answered with no summary")
    return summary.strip()


def _pieces(told: Sequence[str], longest: int) -> list[list[str]]:
    """Return texts in groups of about `longest` tokens, none of them empty."""
    pieces: list[list[str]] = []
    room = 0
    for text in told:
        tokens = estimate_tokens(text)
        if not pieces or tokens > room:
            pieces.append([])
            room = longest
        pieces[-1].append(text)
        room -= tokens
    return pieces


def shortened(items: Sequence[Item], compaction: Compaction) -> list[Item]:
    """Return the conversation to go on with."""
    earlier = compaction.summary or summary_in(items)
    pair = [] if earlier is None else build_summary_messages(earlier)
    return [*pair, *(items[place] for place in compaction.cut.kept)]
